"""A generation: one psycopg_pool from its first connection to proof that its server is gone."""

from __future__ import annotations

import ctypes
import random
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from psycopg_pool import ConnectionPool

from . import signals
from .conf import Configuration
from .connection import ResilientConnection
from .signals import emit

SPARE_SECONDS = 1.0
"""How long a connection may stay out of psycopg's pool after it was given back: its age and idleness
are looked at no less often."""

LIFETIME_JITTER = 0.05
"""How much earlier than `max_lifetime` a connection may be retired, drawn once for each, as psycopg_pool does."""


class Owner(Protocol):
    """The pool, which decides what a generation's news mean."""

    alias: str
    configuration: Configuration

    def connection_opened(self, connection: ResilientConnection) -> None: ...

    def connection_failed(self, generation: Generation, exception: Exception) -> None: ...


class Generation:
    """One `psycopg_pool.ConnectionPool` and its fate."""

    def __init__(
        self,
        number: int,
        owner: Owner,
        survivors: int,
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
    ) -> None:
        self.number = number
        self.alias = owner.alias
        self.condemned = False
        self.failure: Exception | None = None
        """Why nobody could connect, when that is what ended this generation."""
        self._owner = owner
        self._configuration = owner.configuration
        # psycopg_pool would count those who wait for their own connection to open; see `Pool.acquire`.
        arguments = self._configuration.pool_arguments() | {"max_waiting": 0} | self._sizes(survivors)
        # psycopg_pool closes an old connection before it opens another; see `_retire`. Its own limit stays, for
        # connections that never come to rest.
        arguments["max_lifetime"] *= 2
        self.connections: ConnectionPool[ResilientConnection] = ConnectionPool(
            connection_class=ResilientConnection,
            kwargs=lambda: {**connect_arguments(), "observer": self},
            configure=self._configured_by(configure),
            name=f"dbresilience-{self._configuration.name or self.alias}",
            open=False,
            **arguments,
        )
        # What psycopg is to look at whenever a connection comes or goes must not stay with us.
        self._keeps_spares = self._configuration.check is None and self._configuration.reset is None
        self._spares: list[ResilientConnection] = []
        self._waiting: list[None] = []
        self._settles_soon = False
        self._successor_asked_for = False
        self.connections.open()

    # Spares: what was given back less than SPARE_SECONDS ago may be taken again without the ceremony of
    # psycopg's pool, which costs as much as all else in a lease. Whoever finds none joins psycopg's queue.
    # Nobody waits beside a spare: who waits says so before looking again, who gives back looks for
    # waiting ones after giving back, so one of the two sees the other. A list's append and pop are atomic.

    def take(self, timeout: float) -> ResilientConnection:
        """Return a connection, the one given back last if there is a spare.

        Raises:
            psycopg_pool.PoolTimeout: none became free within `timeout` seconds.
            psycopg_pool.PoolClosed: this generation has ended.
        """
        try:
            return self._spares.pop()
        except IndexError:
            self._waiting.append(None)
        try:
            return self._spares.pop()
        except IndexError:
            return self.connections.getconn(timeout)
        finally:
            self._waiting.pop()

    def put_back(self, connection: ResilientConnection) -> None:
        """Give a connection back for whoever is next."""
        self._spares.append(connection)
        if self._waiting or self.condemned or not self._keeps_spares:
            self.settle()
        elif not self._settles_soon:
            self._settles_soon = True
            timer = threading.Timer(SPARE_SECONDS, self._settle_now)
            timer.daemon = True
            timer.name = f"dbresilience-{self.alias}-settle"
            try:
                timer.start()
            except RuntimeError:  # the interpreter ends, or there are no threads left
                self._settle_now()

    def settle(self) -> None:
        """Hand the spares to psycopg's pool, which serves those who wait and ends the old and the idle."""
        while True:
            try:
                connection = self._spares.pop()
            except IndexError:
                return
            self.connections.putconn(connection)

    def _settle_now(self) -> None:
        """Settle, and end one connection that is too old: one a second at most, never the last idle one."""
        self._settles_soon = False
        old = None
        while True:
            try:
                connection = self._spares.pop()
            except IndexError:
                break
            if old is None and self._is_too_old(connection):
                old = connection
            else:
                self.connections.putconn(connection)
        if old is not None:
            self._retire(old)

    def _is_too_old(self, connection: ResilientConnection) -> bool:
        if not connection.most_seconds:
            connection.most_seconds = self._configuration.max_lifetime * random.uniform(1 - LIFETIME_JITTER, 1)
        return connection.age_seconds > connection.most_seconds and not self.condemned

    def _retire(self, connection: ResilientConnection) -> None:
        stats = self.connections.get_stats()
        if stats["pool_available"] or stats["pool_size"] >= self.connections.max_size:
            self._successor_asked_for = False
            connection.end_reason = "max_lifetime"
            connection.close()
            self.connections.putconn(connection)  # psycopg opens another in its place
            return
        if not self._successor_asked_for:
            self._successor_asked_for = True
            least, most = self.connections.min_size, self.connections.max_size
            # A larger min_size connects at once.
            self.connections.resize(least + 1, most)
            self.connections.resize(least, most)
        self.put_back(connection)

    def connection_opened(self, connection: ResilientConnection, seconds: float) -> None:
        """Announce a physical connection (see `ConnectionObserver`)."""
        self._owner.connection_opened(connection)
        emit(
            signals.connection_opened,
            self.alias,
            connect_seconds=seconds,
            backend_pid=connection.backend_pid,
        )

    def connection_closed(self, connection: ResilientConnection) -> None:
        """Announce the end of a physical connection (see `ConnectionObserver`)."""
        emit(
            signals.connection_closed,
            self.alias,
            reason=connection.end_reason,
            backend_pid=connection.session_pid,
            age_seconds=connection.age_seconds,
        )

    def connection_failed(self, exception: Exception, seconds: float) -> None:
        """Announce a failed attempt (see `ConnectionObserver`)."""
        emit(signals.connection_failed, self.alias, exception=exception, connect_seconds=seconds)
        self._owner.connection_failed(self, exception)

    def _configured_by(self, configure: Callable[[ResilientConnection], None]) -> Callable[[ResilientConnection], None]:
        """Let a session that cannot be set up count as one that could not be had."""

        def configure_or_close(connection: ResilientConnection) -> None:
            try:
                configure(connection)
            except Exception as error:
                connection.close()
                self.connection_failed(error, connection.age_seconds)
                raise

        return configure_or_close

    @property
    def idle(self) -> int:
        """Connections nobody uses."""
        return self.connections.get_stats()["pool_available"] + len(self._spares)

    def make_room_for(self, survivors: int) -> None:
        """Stay so small that with `survivors` of older generations the sum is max_size."""
        sizes = self._sizes(survivors)
        if sizes["max_size"] == self.connections.max_size:
            return
        self.connections.resize(**sizes)
        stats = self.connections.get_stats()
        missing = min(stats["requests_waiting"], sizes["max_size"] - stats["pool_size"])
        if missing > 0:
            # Raising max_size alone connects nothing for those who wait already; a larger
            # min_size does, at once.
            least = self.connections.min_size
            self.connections.resize(min(least + missing, sizes["max_size"]), sizes["max_size"])
            self.connections.resize(**sizes)

    def _sizes(self, survivors: int) -> dict[str, int]:
        max_size = max(1, self._configuration.max_size - survivors)
        return {"min_size": min(self._configuration.min_size, max_size), "max_size": max_size}

    def close_soon(self) -> None:
        """Close idle connections and wake those who wait, in a thread of its own.

        Closing joins the pool's worker threads, and the caller may be one of them.
        """
        threading.Thread(target=self.close, name=f"dbresilience-{self.alias}-close", daemon=True).start()

    def close(self, *, wait_seconds: float = 1.0) -> None:
        """Close idle connections and wake those who wait; used ones are closed on release."""
        self.connections.close(timeout=wait_seconds)
        self.settle()

    def abandon(self) -> None:
        """In a forked child: keep the pool for ever.

        Its destructor would wait for threads that the child does not have.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connections))
