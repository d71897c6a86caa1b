"""The line of those who wait, for a moment, for a connection that others have.

psycopg_pool's queue, in which anybody waits who waits for longer, hands each connection to its first. That thread
sleeps, and while it wakes, and waits for Python's global lock, nobody uses the connection; nor can whoever gave it back
go on with it, although its program asks for the next at once. So here it lies where anybody may take it, and one of
those who stand in line is called to look. What calls them is a lock that they acquire without the global one, so where
somebody was quicker the call can often be taken back, and who was called sleeps on without having run. There is one
call at a time: where a lock is handed over to who sleeps (Python 3.14), each release would wake another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic
from typing import Generic, TypeVar

T = TypeVar("T")


class Line(Generic[T]):
    """Those who stand in line.

    Args:
        spares: what they wait for; whoever adds to it, or takes one to use it, says so (`tell`) while anybody stands
            here.
        take: takes one of them, if there is any.
    """

    def __init__(self, spares: list[T], take: Callable[[], T | None]) -> None:
        self.standing: list[object] = []
        """One for each, looked at for each lease: a list's append, remove and truth are atomic."""
        self._spares = spares
        self._take = take
        self._sent_on: list[None] = []
        self._has_ended = False
        self._call = threading.Lock()  # free while there is something to look for
        self._call.acquire()
        self._is_called = False
        """Whether somebody has been called who has not run yet; at times False although, never True for long."""

    def wait(self, seconds: float, is_worth_it: Callable[[], bool]) -> T | None:
        """Return a spare, or None after `seconds`, if it is not worth it, or when sent on."""
        ends = monotonic() + seconds
        place = object()
        try:
            self.standing.append(place)
            # A spare that was given back before this place was there has called nobody.
            while (spare := self._take()) is None:
                if self._has_ended or self._is_sent_on() or not is_worth_it():
                    return None
                left = ends - monotonic()
                if left <= 0 or not self._call.acquire(timeout=left):
                    return None
                self._is_called = False
            return spare
        finally:
            with suppress(ValueError):  # interrupted before it stood there
                self.standing.remove(place)
            while len(self._sent_on) > len(self.standing) and self._is_sent_on():
                pass  # or whoever comes later would leave for nothing
            # Whoever was called may have been called for more than one.
            self._is_called = False
            self.tell()

    def _is_sent_on(self) -> bool:
        try:
            self._sent_on.pop()
        except IndexError:
            return False
        return True

    def tell(self) -> None:
        """Call one of those who stand here if there is something for it, or take the call back."""
        if not self._has_something and self._call.acquire(blocking=False):
            self._is_called = False
        # Looked at after that, or what has come meanwhile would have called nobody.
        if self._has_something and not self._is_called:
            self._is_called = True
            with suppress(RuntimeError):  # by another thread at the same time
                self._call.release()

    @property
    def _has_something(self) -> bool:
        return bool(self._spares or self._sent_on or self._has_ended)

    def send_on(self) -> None:
        """Let one of those who stand here go where there is something for it that is no spare."""
        if len(self._sent_on) < len(self.standing):
            self._sent_on.append(None)
            self.tell()

    def end(self) -> None:
        """Send on all, also whoever comes later."""
        self._has_ended = True
        self.tell()
