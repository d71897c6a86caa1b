"""What this process keeps in mind until the database can be told of it.

Only in memory, because the database is what is missing. One thread tells, and is there only while there is something
to tell; it holds no connection while it waits.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar
from uuid import UUID

from django.db import connections

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Keeping(Generic[T]):
    """What is kept, by the reply that it is about, in the order in which it came."""

    def __init__(self, name: str, tell: Callable[[list[T]], None], every_seconds: Callable[[], float]) -> None:
        self._name = name
        self._tell = tell
        self._every_seconds = every_seconds
        self._lock = threading.Lock()
        self._kept: dict[UUID, T] = {}
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forget_in_child)

    def keep(self, reply_id: UUID, what: T, *, most: int) -> list[T]:
        """Keep one more, in place of what was kept of its reply; returns what has come before the last `most`."""
        with self._lock:
            self._kept.pop(reply_id, None)
            self._kept[reply_id] = what
            if self._thread is None:
                self._start()
            return list(self._kept.values())[: max(0, len(self._kept) - most)]

    def _start(self) -> None:
        thread = threading.Thread(target=self._keep_telling, name=self._name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # there can be no more threads just now, or the interpreter ends
            logger.warning("The thread %s could not start, and will be tried again: %s", self._name, error)
        else:
            self._thread = thread

    def get(self, reply_id: UUID) -> T | None:
        with self._lock:
            return self._kept.get(reply_id)

    def all(self) -> list[T]:
        with self._lock:
            return list(self._kept.values())

    def drop(self, reply_id: UUID, what: T) -> bool:
        """Forget it; false if it is not what is kept of its reply any more."""
        with self._lock:
            if self._kept.get(reply_id) is not what:
                return False
            del self._kept[reply_id]
            return True

    def _keep_telling(self) -> None:
        while True:
            time.sleep(self._every_seconds())
            with self._lock:
                waiting = list(self._kept.values())
                if not waiting:
                    self._thread = None
                    return
            try:
                self._tell(waiting)
            except Exception:
                logger.exception("The thread %s stumbled", self._name)
            finally:
                connections.close_all()

    def _forget_in_child(self) -> None:
        """The parent tells what is the parent's."""
        self._lock, self._thread = threading.Lock(), None
        self._kept.clear()
