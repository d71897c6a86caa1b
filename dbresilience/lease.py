"""One connection in use: who holds it, since when, and what still needs it."""

from __future__ import annotations

import threading
from time import perf_counter
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import psycopg

    from .connection import ResilientConnection
    from .generation import Generation
    from .pool import Pool


class Holder(Protocol):
    """Who took the lease: Django's wrapper of this thread."""

    thread: threading.Thread

    @property
    def allow_thread_sharing(self) -> bool: ...

    def release_if_unneeded(self) -> None: ...

    def forget_connection(self) -> None: ...


class Lease:
    """A connection between acquire and release.

    `cursors` counts what still needs the connection. It is touched by the holder's thread only;
    ending a lease is safe from any thread (see `Pool.release`). `holder` is None once the connection
    was given back: what still refers to it then must not use it.
    """

    __slots__ = (
        "acquired_at",
        "connection",
        "cursors",
        "discard",
        "generation",
        "holder",
        "last_error",
        "pool",
        "wait_seconds",
    )

    def __init__(
        self,
        holder: Holder,
        connection: ResilientConnection,
        pool: Pool,
        generation: Generation,
        asked_at: float,
    ) -> None:
        self.holder: Holder | None = holder
        self.connection = connection
        self.pool = pool
        self.generation = generation
        self.acquired_at = now = perf_counter()
        self.wait_seconds = now - asked_at
        self.cursors = 0
        self.discard = False
        self.last_error: psycopg.Error | None = None

    @property
    def is_orphaned(self) -> bool:
        """Whether the thread that took the connection ended without giving it back."""
        holder = self.holder
        return holder is not None and not holder.thread.is_alive() and not holder.allow_thread_sharing

    @property
    def held_seconds(self) -> float:
        """Seconds since the connection was acquired."""
        return perf_counter() - self.acquired_at

    def cursor_closed(self) -> None:
        """Note that a cursor ended; the holder decides whether the connection goes back."""
        self.cursors -= 1
        if self.cursors <= 0 and self.holder is not None:
            self.holder.release_if_unneeded()
