"""The physical connection: it knows its lease and its age, and remembers the server's last words."""

from __future__ import annotations

import re
import select
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Protocol, Self

import psycopg
from psycopg.pq import ConnStatus

from .errors import is_fatal

if TYPE_CHECKING:
    from .lease import Lease
    from .slow_queries import SlowQueryLog

_ADDRESS = re.compile(
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b"
    r"|(?<![\w:])[0-9a-fA-F]*:[0-9a-fA-F:.]*:[0-9a-fA-F.]*"
)


def without_addresses(text: str, host: str | None) -> str:
    """Return `text` without the configured host names and without IP addresses."""
    for name in (host or "").split(","):
        if name:
            text = text.replace(name, "<host>")
    return _ADDRESS.sub("<address>", text)


class ConnectionObserver(Protocol):
    """Who wants to know about physical connections: the generation they belong to."""

    def connection_opened(self, connection: ResilientConnection, seconds: float) -> None: ...

    def connection_failed(self, exception: Exception, seconds: float) -> None: ...


class ResilientConnection(psycopg.Connection[Any]):
    """A psycopg connection that works for the holder of its lease only."""

    lease: Lease | None = None
    needs_lease = False
    """Set with the first lease: from then on a cursor without one would be somebody else's work."""

    announced = False
    """Whether Django's connection_created was sent for this physical connection."""

    farewell: str | None = None
    """SQLSTATE of a FATAL message received, or None."""

    opened_at = 0.0
    poll: select.poll | None = None
    """Watches the socket; kept, because making one costs as much as asking it (see `liveness`)."""

    slow_query_log: SlowQueryLog | None = None

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's overloads do not admit our keywords
        cls,
        conninfo: str = "",
        *,
        observer: ConnectionObserver | None = None,
        slow_query_log: SlowQueryLog | None = None,
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

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor as psycopg does.

        Raises:
            psycopg.InterfaceError: the connection was given back to its pool.
        """
        if self.lease is None and self.needs_lease:
            raise psycopg.InterfaceError("This connection was given back to its pool.")
        return super().cursor(*args, **kwargs)

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Execute as psycopg does; its cursor, which nobody closes, does not keep the lease."""
        binary = kwargs.pop("binary", False)
        cursor = self.cursor(binary=binary)
        leave = getattr(cursor, "leave_lease", None)
        if leave is not None:
            leave()
        return cursor.execute(query, params, **kwargs)

    def _remember_farewell(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        # libpq hands an error that arrives while nothing is asked to the notice handler.
        if is_fatal(diagnostic.severity_nonlocalized):
            self.farewell = diagnostic.sqlstate or "unknown"

    @property
    def backend_pid(self) -> int | None:
        """Process id of the session on the server, None when closed."""
        return self.pgconn.backend_pid if self.pgconn.status == ConnStatus.OK else None

    @property
    def age_seconds(self) -> float:
        """Seconds since the connection was established."""
        return monotonic() - self.opened_at

    @property
    def is_read_only_server(self) -> bool:
        """Whether the server refuses writes by itself: a standby, or read-only by default.

        Reported by PostgreSQL 14 and later on its own account, so asking costs no round trip.
        """
        return b"on" in (
            self.pgconn.parameter_status(b"in_hot_standby"),
            self.pgconn.parameter_status(b"default_transaction_read_only"),
        )
