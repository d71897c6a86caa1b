"""Every connection of a pool that may still be open, whatever its generation."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import ResilientConnection


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

    def forget_lock(self) -> None:
        """In a forked child: a thread that does not exist here may hold the lock."""
        self._lock = threading.Lock()
