"""Every connection of a pool that may still be open, whatever its generation."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .generation import Generation


class PhysicalConnections:
    """The connections of one pool."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakSet[ResilientConnection] = weakref.WeakSet()

    def add(self, connection: ResilientConnection) -> None:
        """Add a new connection; it leaves by itself when nobody refers to it."""
        with self._lock:
            self._connections.add(connection)

    def all(self) -> list[ResilientConnection]:
        """Return those of this moment."""
        with self._lock:
            return list(self._connections)

    def usable(self, generation: Generation) -> list[ResilientConnection]:
        """Return those of `generation` that are set up: idle, in use, or on their way from one to the next."""
        return [each for each in self.all() if each.observer is generation and each.is_set_up]

    def count(self, generation: Generation | None) -> int:
        """Count those in use, or being cleaned after it, and all others of `generation` that are set up."""
        return sum(
            1
            for each in self.all()
            if each.observer is not None and (each.is_out or (each.observer is generation and each.is_set_up))
        )

    def out_beside(self, generation: Generation | None) -> int:
        """Count those in use, or being cleaned after it, that belong to any but `generation`."""
        return sum(1 for each in self.all() if each.is_out and each.observer not in (None, generation))

    def forget_lock(self) -> None:
        """In a forked child: a thread that does not exist here may hold the lock."""
        self._lock = threading.Lock()
