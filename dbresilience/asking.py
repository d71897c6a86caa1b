"""One question to the server however many ask: it is asked once at a time, and its answer serves all for a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from time import monotonic
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class SharedAnswer(Generic[Answer]):
    """The answer of a function that may take long, asked in a thread of its own.

    Args:
        ask: gives the answer; must not raise, and must end by itself.
        memory_seconds: how long one answer serves all who ask.
        name: of the thread.
        longest_age_seconds: how old an answer may be that serves those whom a newer one reaches too late; by default
            they are told nothing, as suits a question whether something is well *now*.
    """

    def __init__(
        self, ask: Callable[[], Answer], *, memory_seconds: float, name: str, longest_age_seconds: float = 0.0
    ) -> None:
        self._ask = ask
        self._memory_seconds = memory_seconds
        self._longest_age_seconds = longest_age_seconds
        self._name = name
        self._lock = threading.Lock()
        self._running: Future[Answer] | None = None
        self._last: Answer | None = None
        self._last_at = 0.0

    def get(self, *, timeout_seconds: float) -> Answer | None:
        """Return the answer, at most `memory_seconds` old, within `timeout_seconds`.

        If it takes longer, return the one before it, at most `longest_age_seconds` old, or else None.
        """
        with self._lock:
            known = self._known(self._memory_seconds)
            if known is not None:
                return known
            running = self._running
            if running is None:
                running = Future()
                try:
                    threading.Thread(target=self._run, args=(running,), name=self._name, daemon=True).start()
                except RuntimeError:  # there can be no more threads
                    return self._known(self._longest_age_seconds)
                self._running = running
        try:
            return running.result(timeout=timeout_seconds)
        except FutureTimeoutError:
            with self._lock:
                return self._known(self._longest_age_seconds)

    @property
    def is_asking(self) -> bool:
        """Whether the question is under way."""
        return self._running is not None

    def _known(self, age_seconds: float) -> Answer | None:
        return self._last if monotonic() - self._last_at < age_seconds else None

    def _run(self, running: Future[Answer]) -> None:
        answer = self._ask()
        with self._lock:
            self._last, self._last_at, self._running = answer, monotonic(), None
        running.set_result(answer)
