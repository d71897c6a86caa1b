"""The physical connection: it knows its lease and its age, and remembers the server's last words."""

from __future__ import annotations

from functools import partial
from time import monotonic, perf_counter
from typing import TYPE_CHECKING, Any, Self

import psycopg
from psycopg.pq import ConnStatus

from .addresses import without_addresses
from .batching import BatchingMixin
from .committing import CommittingMixin
from .conf import WRITERS
from .credentials import PasswordSource, connect_with
from .cursors import leased
from .dialling import dial, end_attempt, is_unexplained, read_refusal
from .errors import NOT_FOR_WRITING, is_fatal, mark
from .overdue import DeadlineMixin

if TYPE_CHECKING:
    from .hosts import HostOrder
    from .lease import Lease
    from .observer import ConnectionObserver
    from .slow_queries import SlowQueryLog


class ResilientConnection(CommittingMixin, DeadlineMixin, BatchingMixin, psycopg.Connection[Any]):
    """A psycopg connection that works for the holder of its lease only."""

    lease: Lease | None = None
    needs_lease = False
    """Set with the first lease: from then on a cursor without one would be somebody else's work."""

    cluster: bytes | None = None
    """The number of its server's cluster, if outcomes can be looked up there (see `transaction_ids`)."""

    announced = False
    """Whether Django's connection_created was sent for this physical connection."""

    is_set_up = False
    """Whether its session has what everybody needs, so that it can be lent."""

    is_out = False
    """Whether it is not back since somebody took it from its generation: lent, or being cleaned afterwards."""

    has_session_state = False
    """Whether something was ever left on its session, such as LISTEN."""

    farewell: str | None = None
    """SQLSTATE of a FATAL message received, or None."""

    opened_at = 0.0
    answered_at = 0.0
    """When the server last answered somebody who has given it back, by `time.perf_counter`."""

    seen_at = 0.0
    """When psycopg's pool had it last, by `time.monotonic`."""

    session_pid: int | None = None
    """Process id of the session on the server, also when the session is over."""

    most_seconds = 0.0
    """Age at which it is retired; drawn when it is first looked at."""

    end_reason = "no longer needed"
    """Why it is closed, for whoever counts and logs."""

    observer: ConnectionObserver | None = None
    slow_query_log: SlowQueryLog | None = None

    answer_seconds: float | None = None
    """Longest wait for a host to take the connection; None leaves it to `connect_timeout`."""

    wanted_server = "any"
    """libpq's target_session_attrs: which of several servers it was to have."""

    must_write = False
    """Whether that is one which takes writes."""

    timezone: Any = ...
    """The time zone its loaders are known to use, so that it need not be looked up for each cursor."""

    @classmethod
    def connect(  # type: ignore[override]  # psycopg's overloads do not admit our keywords
        cls,
        conninfo: str = "",
        *,
        observer: ConnectionObserver | None = None,
        slow_query_log: SlowQueryLog | None = None,
        log_addresses: bool = False,
        deadline_seconds: float | None = None,
        password_source: PasswordSource | None = None,
        hosts: HostOrder | None = None,
        **kwargs: Any,
    ) -> Self:
        """Connect as psycopg does and tell `observer` how it went; take one that it has ready, if it has.

        libpq puts the server's address into the text of its errors; unless `log_addresses`, it
        is taken out before anybody can log it.
        """
        started = perf_counter()
        connection = observer.take_parked() if observer is not None else None
        try:
            if connection is None:
                if hosts is not None:
                    kwargs |= hosts.arguments()
                connection = connect_with(password_source, partial(cls._dial, conninfo, **kwargs))
                connection.connect_seconds = perf_counter() - started
        except Exception as exception:
            if isinstance(exception, psycopg.Error) and not log_addresses:
                exception.args = (without_addresses(str(exception)),)
            if observer is not None:
                observer.connection_failed(exception, perf_counter() - started)
            raise
        connection.opened_at = monotonic()
        connection.session_pid = connection.pgconn.backend_pid
        connection.deadline_seconds = deadline_seconds
        connection.slow_query_log = slow_query_log
        connection.wanted_server = _wanted_server(connection)
        connection.must_write = connection.wanted_server in WRITERS
        if hosts is not None:
            hosts.remember(connection)
        connection.add_notice_handler(connection._remember_farewell)
        if observer is not None:
            connection.observer = observer
            observer.connection_opened(connection, connection.connect_seconds)
        return connection  # type: ignore[return-value]  # a parked one is of this class

    @classmethod
    def _dial(cls, conninfo: str, **kwargs: Any) -> Self:
        try:
            return super().connect(conninfo, **kwargs)
        except psycopg.OperationalError as error:
            read_refusal(error)
            # libpq's own verdict on target_session_attrs has no code, and its text is translated.
            if kwargs.get("target_session_attrs") in WRITERS and is_unexplained(error):
                mark(error, NOT_FOR_WRITING)
            raise
        finally:
            end_attempt()

    @classmethod
    def _connect_gen(cls, conninfo: str = "", *, timeout: float | None = None) -> Any:
        # psycopg's own step, one address at a time; replaced because it hides the SQLSTATE of a refusal.
        pgconn = yield from dial(conninfo, timeout_seconds=timeout, answer_seconds=cls.answer_seconds)
        return cls(pgconn)

    def close(self) -> None:
        """Close as psycopg does, and tell the observer once."""
        observer, self.observer = self.observer, None
        super().close()
        if observer is not None:
            observer.connection_closed(self)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a cursor as psycopg does.

        Raises:
            psycopg.InterfaceError: the connection was given back to its pool.
        """
        if self.lease is None and self.needs_lease:
            raise psycopg.InterfaceError("This connection was given back to its pool.")
        given = self.cursor_factory  # what a program reads there stays what it has put there
        self.cursor_factory = leased(given)  # type: ignore[arg-type]  # mypy holds classes to be unhashable
        try:
            return super().cursor(*args, **kwargs)
        finally:
            self.cursor_factory = given

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
    def may_hear(self) -> bool:
        """Whether notifications may come."""
        return self.has_session_state or bool(self._notify_handlers)

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


class ProbingConnection(ResilientConnection):
    """Dials again where packets are swallowed, instead of waiting for the system to repeat them."""

    answer_seconds = 1.0


def _wanted_server(connection: ResilientConnection) -> str:
    # As libpq has it, which may be from the environment or a service file.
    for option in connection.pgconn.info:
        if option.keyword == b"target_session_attrs":
            return (option.val or b"any").decode()
    return "any"
