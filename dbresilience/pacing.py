"""One at a time on this machine: a full server is dialled so many times a second however many processes there are."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from time import time

from .operators import OrderFile, OrdersUnusable


class SharedPace:
    """Gives out turns, one in `every_seconds` for all processes that name the same file.

    Args:
        beside: the orders of the same database; where their folder cannot be used everybody has a turn.
        every_seconds: least time between two turns.
    """

    def __init__(self, beside: OrderFile, every_seconds: float) -> None:
        self._beside = beside
        self._path = beside.path.removesuffix(".json") + ".turn"
        self._every_seconds = every_seconds

    def take_turn(self) -> bool:
        """Whether it is this process's turn now; then it is nobody else's for `every_seconds`."""
        try:
            self._beside.prepare_folder()
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        except (OSError, OrdersUnusable):
            return True
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(file)
            if status.st_size and 0 <= time() - status.st_mtime < self._every_seconds:
                return False
            os.pwrite(file, b"turn taken", 0)
            os.utime(file)
        except BlockingIOError:
            return False
        finally:
            os.close(file)
        return True

    def clear(self) -> None:
        """Let anybody have the next turn at once."""
        with suppress(OSError):
            os.unlink(self._path)
