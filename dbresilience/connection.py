"""The physical connection and its cursors: they know their lease and report what happens.

Cursors subclass Django's own, with the same constructor, so the debug toolbar and other wrappers
see nothing new.
"""

from __future__ import annotations

import re
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol, Self

import psycopg
from django.db.backends.postgresql.base import Cursor, ServerBindingCursor, ServerSideCursor

from . import slow_queries
from .errors import is_fatal

if TYPE_CHECKING:
    from .lease import Lease


_ADDRESS = re.compile(r"\b\d{1,3}(?:\.\d{1,3}){3}\b|(?<![\w:])[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F.]*")


def without_addresses(text: str, host: str | None) -> str:
    """Return `text` without the configured host names and without IP addresses."""
    for name in (host or "").split(","):
        if name:
            text = text.replace(name, "<host>")
    return _ADDRESS.sub("<address>", text)


class ConnectionObserver(Protocol):
    """Who wants to know about physical connections: the pool they belong to."""

    def connection_opened(self, connection: ResilientConnection, seconds: float) -> None: ...

    def connection_failed(self, exception: Exception, seconds: float) -> None: ...


class ResilientConnection(psycopg.Connection[Any]):
    """A psycopg connection that remembers its lease, its age and the server's last words."""

    lease: Lease | None = None
    announced = False
    """Whether Django's connection_created was sent for this physical connection."""

    farewell: str | None = None
    """SQLSTATE of a FATAL message received, or None."""

    opened_at = 0.0
    slow_query_log: slow_queries.SlowQueryLog | None = None

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's overloads do not admit our two keywords
        cls,
        conninfo: str = "",
        *,
        observer: ConnectionObserver | None = None,
        slow_query_log: slow_queries.SlowQueryLog | None = None,
        log_addresses: bool = False,
        **kwargs: Any,
    ) -> Self:
        """Connect as psycopg does and tell `observer` how it went.

        libpq puts the server's address into the text of its errors; unless `log_addresses`, it
        is taken out before anybody can log it.
        """
        started = perf_counter()
        try:
            connection = super().connect(conninfo, **kwargs)
        except Exception as exception:
            if isinstance(exception, psycopg.Error) and not log_addresses:
                exception.args = (without_addresses(str(exception), kwargs.get("host")),)
            if observer is not None:
                observer.connection_failed(exception, perf_counter() - started)
            raise
        connection.opened_at = monotonic()
        connection.slow_query_log = slow_query_log
        connection.add_notice_handler(connection._remember_farewell)
        if observer is not None:
            observer.connection_opened(connection, perf_counter() - started)
        return connection

    def _remember_farewell(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # libpq hands an error that arrives while nothing is asked to the notice handler.
        if is_fatal(diagnostic.severity_nonlocalized):
            self.farewell = diagnostic.sqlstate or "unknown"

    @property
    def age_seconds(self) -> float:
        """Seconds since the connection was established."""
        return monotonic() - self.opened_at


if TYPE_CHECKING:
    _Cursor = psycopg.Cursor[Any]
else:
    _Cursor = object


class LeasedCursorMixin(_Cursor):
    """A cursor that counts as use of the lease until it is closed, and times its statements."""

    def __init__(self, connection: ResilientConnection, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        self._log = getattr(connection, "slow_query_log", None)
        self._lease = getattr(connection, "lease", None)
        if self._lease is not None:
            self._lease.cursors += 1

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Execute as psycopg does; see `slow_queries` for what is timed."""
        started = perf_counter()
        try:
            return super().execute(query, params, **kwargs)
        except psycopg.Error as error:
            if self._lease is not None:
                self._lease.last_error = error
            raise
        finally:
            if self._log is not None:
                elapsed = perf_counter() - started
                if elapsed >= self._log.threshold_seconds:
                    self._log.report(self, query, params, elapsed, self._lease)

    def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        """Execute as psycopg does; the whole batch is one entry of the slow-query log."""
        started = perf_counter()
        try:
            return super().executemany(query, params_seq, **kwargs)
        except psycopg.Error as error:
            if self._lease is not None:
                self._lease.last_error = error
            raise
        finally:
            if self._log is not None:
                elapsed = perf_counter() - started
                if elapsed >= self._log.threshold_seconds:
                    self._log.report(self, query, None, elapsed, self._lease)

    def close(self) -> None:
        """Close the cursor; the last one outside a transaction gives the connection back."""
        lease, self._lease = self._lease, None
        try:
            super().close()
        finally:
            if lease is not None:
                lease.cursor_closed()


class LeasedCursor(LeasedCursorMixin, Cursor):
    """Client-side binding, Django's default."""


class LeasedServerBindingCursor(LeasedCursorMixin, ServerBindingCursor):
    """Server-side binding, for ``OPTIONS["server_side_binding"]``."""


class LeasedServerSideCursor(LeasedCursorMixin, ServerSideCursor):
    """A named cursor, for ``QuerySet.iterator()``."""


class LeasedServerBindingServerSideCursor(LeasedCursorMixin, psycopg.ServerCursor[Any]):
    """A named cursor with server-side binding."""
