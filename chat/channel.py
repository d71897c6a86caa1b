"""The way from the thread that makes a reply to the request that reads it, which may be a thread or a coroutine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Event:
    name: str
    data: dict[str, Any]

    @property
    def is_last(self) -> bool:
        return self.name in ("done", "error")


class Channel:
    """Unbounded, because a reply is bounded: a slow reader must not keep the writer from saving."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._condition = threading.Condition()
        self._ended = False
        self._wake_coroutine: Callable[[], object] | None = None
        self._read_at = time.monotonic()

    def put(self, name: str, data: dict[str, Any]) -> None:
        self._change(lambda: self._events.append(Event(name, data)))

    def end(self) -> None:
        """Nothing follows."""
        self._change(lambda: setattr(self, "_ended", True))

    def read(self, timeout_seconds: float) -> list[Event] | None:
        """What has come, perhaps nothing within the time; None after the end."""
        with self._condition:
            self._read_at = time.monotonic()
            if not self._events and not self._ended:
                self._condition.wait(timeout_seconds)
            return self._take()

    async def aread(self, timeout_seconds: float) -> list[Event] | None:
        """`read` for a coroutine; takes no thread while it waits."""
        ready = asyncio.Event()
        loop = asyncio.get_running_loop()
        with self._condition:
            self._read_at = time.monotonic()
            if self._events or self._ended:
                return self._take()
            self._wake_coroutine = lambda: loop.call_soon_threadsafe(ready.set)
        with suppress(TimeoutError):
            await asyncio.wait_for(ready.wait(), timeout_seconds)
        with self._condition:
            self._wake_coroutine = None
            return self._take()

    @property
    def unread_seconds(self) -> float:
        """How long nobody has asked for anything."""
        return time.monotonic() - self._read_at

    def _change(self, change: Callable[[], object]) -> None:
        with self._condition:
            change()
            self._condition.notify()
            wake = self._wake_coroutine
        if wake is not None:
            # The loop is closed when its server stops; then nobody reads any more.
            with suppress(RuntimeError):
                wake()

    def _take(self) -> list[Event] | None:
        """Caller holds `_condition`."""
        if not self._events and self._ended:
            return None
        events = list(self._events)
        self._events.clear()
        return events
