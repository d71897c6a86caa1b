"""A generation: one psycopg_pool from its first connection to proof that its server is gone."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import Any

from psycopg_pool import ConnectionPool

from .conf import Configuration
from .connection import ResilientConnection


class Generation:
    """One `psycopg_pool.ConnectionPool` and its fate."""

    def __init__(
        self,
        number: int,
        alias: str,
        configuration: Configuration,
        survivors: int,
        connect_arguments: Callable[[], dict[str, Any]],
        configure: Callable[[ResilientConnection], None],
    ) -> None:
        self.number = number
        self.alias = alias
        self.condemned = False
        self.failure: Exception | None = None
        """Why nobody could connect, when that is what ended this generation."""
        self._configuration = configuration
        arguments = configuration.pool_arguments() | self._sizes(survivors)
        self.connections: ConnectionPool[ResilientConnection] = ConnectionPool(
            connection_class=ResilientConnection,
            kwargs=connect_arguments,
            configure=configure,
            name=configuration.name or f"dbresilience-{alias}",
            open=False,
            **arguments,
        )
        self.connections.open()

    @property
    def idle(self) -> int:
        """Connections nobody uses."""
        return self.connections.get_stats()["pool_available"]

    def make_room_for(self, survivors: int) -> None:
        """Stay so small that with `survivors` of older generations the sum is max_size."""
        sizes = self._sizes(survivors)
        if sizes["max_size"] != self.connections.max_size:
            self.connections.resize(**sizes)

    def _sizes(self, survivors: int) -> dict[str, int]:
        max_size = max(1, self._configuration.max_size - survivors)
        return {"min_size": min(self._configuration.min_size, max_size), "max_size": max_size}

    def close_soon(self) -> None:
        """Close idle connections and wake those who wait, in a thread of its own.

        Closing joins the pool's worker threads, and the caller may be one of them.
        """
        threading.Thread(target=self.close, name=f"dbresilience-{self.alias}-close", daemon=True).start()

    def close(self) -> None:
        """Close idle connections and wake those who wait; used ones are closed on release."""
        self.connections.close(timeout=1.0)

    def abandon(self) -> None:
        """In a forked child: keep the pool for ever.

        Its destructor would wait for threads that the child does not have.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connections))
