"""A generation: one psycopg_pool from its first connection to proof that its server is gone."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Mapping
from time import monotonic, sleep
from typing import Any, Protocol

from psycopg_pool import ConnectionPool

from . import signals
from .conf import Configuration
from .connection import ResilientConnection
from .deadlines import deadline, seconds_left
from .errors import StatementOverdue
from .overdue import LEAST_PATIENCE_SECONDS
from .signals import emit
from .sizing import Sizing, sizes_beside
from .spares import Spares

GROW_SECONDS = 0.5
"""How long `Generation.begin` waits for its connection; whoever comes too early opens another."""


class GenerationObserver(Protocol):
    """Who hears a generation's news and decides what they mean (see `recovery`)."""

    alias: str
    configuration: Configuration

    def connection_opened(self, connection: ResilientConnection) -> None: ...

    def connection_failed(self, generation: Generation, exception: Exception) -> None: ...

    def connection_closed(self, generation: Generation) -> None: ...

    def connection_overdue(self, generation: Generation, cause: Exception, *, is_server_silent: bool) -> None: ...

    def connection_silent(self) -> None: ...

    def take_parked(self) -> ResilientConnection | None: ...


class Generation:
    """One `psycopg_pool.ConnectionPool` and its fate."""

    def __init__(
        self,
        number: int,
        observer: GenerationObserver,
        survivors: int,
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
    ) -> None:
        self.number = number
        self.alias = observer.alias
        self.condemned = False
        self._observer = observer
        self._configuration = observer.configuration
        # psycopg_pool would count those who wait for their own connection to open; see `acquiring`.
        arguments = self._configuration.pool_arguments() | {"max_waiting": 0}
        arguments |= sizes_beside(survivors, self._configuration)
        for name in ("check", "reset"):
            if arguments[name] is not None:
                arguments[name] = self._asked_without_lease(arguments[name])
        # A connection is retired by `spares`. This limit stays for one that others wait for all the time.
        arguments["max_lifetime"] *= 2
        self.psycopg_pool: ConnectionPool[ResilientConnection] = ConnectionPool(
            connection_class=ResilientConnection,
            kwargs=lambda: {**connect_arguments(), "observer": self},
            configure=self._configured_by(configure),
            name=f"dbresilience-{self._configuration.name or self.alias}",
            open=False,
            **arguments,
        )
        self._sizing = Sizing(self.psycopg_pool, self._configuration, survivors)
        self._spares = Spares(
            self.psycopg_pool, self._configuration, f"dbresilience-{self.alias}-settle", self._sizing.open_more
        )
        # Without a layer between, since these are called for each lease.
        self.take_spare, self.put_back = self._spares.take_spare, self._spares.put_back
        self.psycopg_pool.open()

    def take(self, timeout: float) -> ResilientConnection:
        """Return a connection; raises psycopg_pool's `PoolTimeout` after `timeout` seconds, or `PoolClosed`."""
        return self._spares.take(timeout)

    def give_up(self, connection: ResilientConnection) -> None:
        """Give a closed connection back, for another in its place; any other if this generation is condemned."""
        connection.is_out = False
        self.psycopg_pool.putconn(connection)

    def settle(self) -> None:
        """Put everything that is idle into psycopg's pool."""
        self._spares.settle()

    def connection_opened(self, connection: ResilientConnection, seconds: float) -> None:
        """Announce a physical connection (see `ConnectionObserver`)."""
        self._observer.connection_opened(connection)
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
        self._observer.connection_closed(self)

    def connection_failed(self, exception: Exception, seconds: float) -> None:
        """Announce a failed attempt (see `ConnectionObserver`)."""
        emit(signals.connection_failed, self.alias, exception=exception, connect_seconds=seconds)
        self._observer.connection_failed(self, exception)

    def connection_overdue(
        self,
        connection: ResilientConnection,
        *,
        deadline_seconds: float | None,
        answered: bool,
        is_server_silent: bool,
    ) -> None:
        """Announce a statement that was given up (see `ConnectionObserver`)."""
        lease = connection.lease
        emit(
            signals.statement_overdue,
            self.alias,
            answered=answered,
            deadline_seconds=deadline_seconds,
            query=lease.last_query_text if lease is not None else "",
            backend_pid=connection.session_pid,
        )
        if not answered:
            cause = StatementOverdue("A statement was never answered.")
            self._observer.connection_overdue(self, cause, is_server_silent=is_server_silent)

    def connection_silent(self) -> None:
        """Let somebody find out whether the server answers at all (see `ConnectionObserver`)."""
        self._observer.connection_silent()

    def take_parked(self) -> ResilientConnection | None:
        """Hand over a connection that is open already (see `ConnectionObserver`)."""
        return self._observer.take_parked()

    def begin(self) -> None:
        """Have a first connection at once, though nobody waits for it; it comes within `GROW_SECONDS` or later."""
        if self.psycopg_pool.get_stats()["pool_size"]:
            return
        self._sizing.open_more()
        # psycopg's own wait() closes a pool that is not ready in time.
        deadline = monotonic() + GROW_SECONDS
        while not self.idle and monotonic() < deadline:
            sleep(0.001)

    def _configured_by(self, configure: Callable[[ResilientConnection], None]) -> Callable[[ResilientConnection], None]:
        """Let a session that cannot be set up count as one that could not be had."""

        def configure_or_close(connection: ResilientConnection) -> None:
            try:
                configure(connection)
            except Exception as error:
                connection.close()
                self.connection_failed(error, connection.age_seconds)
                raise
            connection.is_set_up = True
            if not self.psycopg_pool.get_stats()["requests_waiting"]:
                self._spares.send_on()

        return configure_or_close

    def _asked_without_lease(self, callback: Callable[[ResilientConnection], Any]) -> Callable[..., None]:
        """Let the user's `check` or `reset` query a connection that nobody has, for as long as one is waited for."""
        configuration = self._configuration

        def ask(connection: ResilientConnection) -> None:
            needed_lease, connection.needs_lease = connection.needs_lease, False
            seconds = seconds_left(configuration.timeout, configuration.deadline_seconds)
            try:
                with deadline(max(seconds, LEAST_PATIENCE_SECONDS)):
                    callback(connection)
            finally:
                connection.needs_lease = needed_lease

        return ask

    @property
    def idle(self) -> int:
        """Connections nobody uses."""
        return self.psycopg_pool.get_stats()["pool_available"] + len(self._spares)

    @property
    def waiting(self) -> int:
        """Requests that wait, without those that have given up: psycopg counts them until their turn comes."""
        asking = self._spares.asking
        return self._spares.standing + (asking and min(asking, self.psycopg_pool.get_stats()["requests_waiting"]))

    def make_room_for(self, survivors: int) -> None:
        """Stay so small that with `survivors` of older generations the sum is max_size."""
        self._sizing.make_room_for(survivors, self.waiting)

    def close_soon(self) -> None:
        """Close idle connections and wake those who wait, in a thread of its own.

        Closing joins the pool's worker threads, and the caller may be one of them.
        """
        thread = threading.Thread(target=self.close, name=f"dbresilience-{self.alias}-close", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or there can be no more threads
            self.close(wait_seconds=0)

    def close(self, *, wait_seconds: float = 1.0) -> None:
        """Close idle connections and wake those who wait; used ones are closed on release."""
        self.psycopg_pool.close(timeout=wait_seconds)
        self._spares.close()

    def abandon(self) -> None:
        """In a forked child: keep the pool for ever.

        Its destructor would wait for threads that the child does not have.
        """
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.psycopg_pool))
