"""Which processes have heard an order: a line each in a file beside the orders, so that the command can count them."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress

_HERE = secrets.token_hex(8)
"""Tells processes of two containers apart, which may have the same number."""

_MOST_BYTES = 1 << 20


class Hearers:
    """Those who have heard the last order, whether or not they still live.

    It is for the operator's eyes only, so a file that cannot be used is no error: it counts nobody.

    Args:
        path: of the file; its folder belongs to this user alone.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def add(self, order: int) -> None:
        """Count this process once more for `order`, a number that only this order has."""
        with suppress(OSError):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, f"{order} {_HERE}-{os.getpid()}\n".encode())
            finally:
                os.close(descriptor)

    def count(self, order: int) -> int:
        """Return how many processes have heard `order`; those that heard another one do not count."""
        with suppress(OSError):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                lines = os.read(descriptor, _MOST_BYTES).splitlines()
            finally:
                os.close(descriptor)
            return len({line for line in lines if line.startswith(b"%d " % order)})
        return 0

    def forget(self) -> None:
        """Begin anew, for the next order; so the file never grows for long."""
        with suppress(OSError):
            os.unlink(self._path)
