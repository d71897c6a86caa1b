"""What a database error means: SQLSTATE → class, what to do with the connection, HTTP status.

`classify(exc)` never reads the server's message text, which is translated; only the texts of
poolers, which are not, decide where PgBouncer and its like send one code for everything.
Codes and names: PostgreSQL manual, appendix A.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.transaction import TransactionManagementError
from psycopg.errors import ConnectionTimeout
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

NOT_SENT = "not_sent"
READ = "read"
TRANSACTION = "transaction"
NEVER = "never"


class DatabaseUnavailable(OperationalError):
    """The database cannot serve this request now; the statement was not sent.

    Attributes:
        retry_after_seconds: what the alias is configured to tell clients, or None.
    """

    def __init__(self, *args: object, retry_after_seconds: float | None = None) -> None:
        super().__init__(*args)
        self.retry_after_seconds = retry_after_seconds


class AcquireTimeout(DatabaseUnavailable):
    """No connection became free within the pool's `timeout`.

    Attributes:
        could_not_connect: fewer than `max_size` were open, so what was lacking is the server.
    """

    could_not_connect = False


class TooManyWaiting(DatabaseUnavailable):
    """The pool's `max_waiting` requests were waiting already."""


class OutOfTime(DatabaseUnavailable):
    """The request's deadline had passed before it asked for this connection."""


class StatementOverdue(psycopg.OperationalError):
    """A statement was given up at the request's deadline; Django's OperationalError has it as its cause.

    Attributes:
        was_sent: False if the deadline had passed before, so that the server never saw the statement.
    """

    was_sent = True


class PasswordUnavailable(psycopg.OperationalError):
    """The function or file that a password is read from gave none; nothing was sent to the server."""


class PinnedConnectionLost(InterfaceError):
    """The connection of a `pinned()` block was closed within it; what was set on it is gone."""


class CommitOutcomeUnknown(OperationalError):
    """The session was lost after COMMIT, or a write outside a transaction, was sent, and nobody can say what became of
    it: the change may or may not have been stored. It is never sent again by itself. The cause is attached."""


class RetryInsideTransaction(TransactionManagementError):
    """A unit marked by `retry` was begun within a transaction, of which it could only run a part again."""


@dataclass(frozen=True, slots=True)
class Classification:
    """What one error means.

    Attributes:
        name: the class, e.g. ``connection_lost``.
        status: HTTP status that tells a client the truth, or None to leave the error alone.
        evict: the connection must not be used again.
        condemn: its whole generation is suspect.
        outage: evidence that the server is away, as opposed to busy.
        retry: what may run again: ``never``, ``not_sent`` (only if provably never sent),
            ``read`` (also a read outside a transaction) or ``transaction`` (a whole repeatable
            unit).
        retry_after_seconds: a better Retry-After than the configured one, or None.
    """

    name: str
    status: int | None = None
    evict: bool = False
    condemn: bool = False
    outage: bool = False
    retry: str = NEVER
    retry_after_seconds: float | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def unavailable(self) -> bool:
        """Whether the honest answer is 503: nothing is wrong with the request itself."""
        return self.status == 503


CONNECTION_LOST = Classification("connection_lost", 503, evict=True, condemn=True, outage=True, retry=READ)
CANNOT_CONNECT = Classification("cannot_connect", 503, outage=True, retry=NOT_SENT)
SESSION_ENDED = Classification("session_ended", 503, evict=True, retry=READ)
SHUTTING_DOWN = replace(CONNECTION_LOST, name="shutting_down")
NO_WRITER = replace(CANNOT_CONNECT, name="no_writer", retry_after_seconds=1)
STARTING = Classification("starting", 503, outage=True, retry=NOT_SENT, retry_after_seconds=1)
OVERLOADED = Classification("overloaded", 503)
SERVER_FULL = replace(OVERLOADED, name="server_full", retry=NOT_SENT)
POOL_EXHAUSTED = replace(OVERLOADED, name="pool_exhausted", retry=NOT_SENT)
UNAVAILABLE = Classification("unavailable", 503, retry=NOT_SENT)
POOLER_UNAVAILABLE = Classification("pooler_unavailable", 503, evict=True, outage=True, retry=NOT_SENT)
POOLER_FULL = Classification("pooler_full", 503, evict=True, retry=NOT_SENT)
POOLER_LOST_SERVER = Classification("pooler_lost_server", 503, evict=True, retry=READ)
READ_ONLY = Classification("read_only", 503, evict=True, condemn=True, retry=TRANSACTION)
SERIALIZATION = Classification("serialization", 503, retry=TRANSACTION, retry_after_seconds=1)
OUTCOME_UNKNOWN = Classification("outcome_unknown", 503, evict=True, condemn=True, outage=True)
NOT_COMMITTED = replace(CONNECTION_LOST, name="not_committed", retry=TRANSACTION)
LOCK_NOT_AVAILABLE = Classification("lock_not_available", 503, retry_after_seconds=1)
TIMEOUT = Classification("timeout", 504)
OUT_OF_TIME = Classification("out_of_time", 504)
DEADLINE_EXCEEDED = Classification("deadline_exceeded", 503, evict=True, outage=True)
TRANSACTION_TIMEOUT = Classification("transaction_timeout", 504, evict=True)
IDLE_IN_TRANSACTION = Classification("idle_in_transaction", evict=True, retry=TRANSACTION)
DATABASE_DROPPED = Classification("database_dropped", evict=True, condemn=True)
# Closing the connection drops its prepared statements, which are the trouble.
STALE_PLAN = Classification("stale_plan", evict=True, retry=READ)
SERVER_TROUBLE = Classification("server_trouble", 503, evict=True, outage=True)
SERVER_BUG = Classification("server_bug", evict=True)
CREDENTIALS = Classification("credentials", 503, outage=True)
PROTOCOL = Classification("protocol", evict=True)
OTHER_SERVER_AWAY = Classification("other_server_away", 503)
NOT_TRANSIENT = Classification("not_transient")

BY_SQLSTATE: dict[str, Classification] = {
    "08000": CONNECTION_LOST,  # connection_exception
    "08001": CANNOT_CONNECT,  # sqlclient_unable_to_establish_sqlconnection
    "08003": CONNECTION_LOST,  # connection_does_not_exist
    "08004": CANNOT_CONNECT,  # sqlserver_rejected_establishment_of_sqlconnection
    "08006": CONNECTION_LOST,  # connection_failure
    "08007": OUTCOME_UNKNOWN,  # transaction_resolution_unknown
    "25006": READ_ONLY,  # read_only_sql_transaction; an InternalError in psycopg
    "25P03": IDLE_IN_TRANSACTION,  # idle_in_transaction_session_timeout; an InternalError
    "25P04": TRANSACTION_TIMEOUT,  # transaction_timeout; an InternalError
    "26000": STALE_PLAN,  # invalid_sql_statement_name
    "28000": CREDENTIALS,  # invalid_authorization_specification
    "28P01": CREDENTIALS,  # invalid_password
    "40000": SERIALIZATION,  # transaction_rollback
    "40001": SERIALIZATION,  # serialization_failure
    "40003": OUTCOME_UNKNOWN,  # statement_completion_unknown
    "40P01": SERIALIZATION,  # deadlock_detected
    "42P05": STALE_PLAN,  # duplicate_prepared_statement
    "53000": OVERLOADED,  # insufficient_resources
    "53100": OVERLOADED,  # disk_full
    "53200": OVERLOADED,  # out_of_memory
    "53300": SERVER_FULL,  # too_many_connections
    "53400": OVERLOADED,  # configuration_limit_exceeded
    "55P03": LOCK_NOT_AVAILABLE,  # lock_not_available
    "57014": TIMEOUT,  # query_canceled
    "57P01": SHUTTING_DOWN,  # admin_shutdown
    "57P02": SHUTTING_DOWN,  # crash_shutdown
    "57P03": STARTING,  # cannot_connect_now
    "57P04": DATABASE_DROPPED,  # database_dropped
    "57P05": SESSION_ENDED,  # idle_session_timeout: raised while idle, so nothing was lost
    "58000": SERVER_TROUBLE,  # system_error
    "58030": SERVER_TROUBLE,  # io_error
    "HV00N": OTHER_SERVER_AWAY,  # fdw_unable_to_establish_connection
    "XX000": SERVER_BUG,  # internal_error
    "XX001": SERVER_TROUBLE,  # data_corrupted
    "XX002": SERVER_TROUBLE,  # index_corrupted
}

_POOLER_TEXTS: tuple[tuple[str, Classification], ...] = (
    ("query_wait_timeout", POOLER_FULL),
    ("no more connections allowed", POOLER_FULL),
    ("client connections exceeded", POOLER_FULL),
    ("max clients reached", POOLER_FULL),
    ("maxclientsinsessionmode", POOLER_FULL),
    ("server login has been failing", POOLER_UNAVAILABLE),
    ("client_login_timeout", POOLER_UNAVAILABLE),
    ("server shutting down", POOLER_UNAVAILABLE),
    ("pooler is shutting down", POOLER_UNAVAILABLE),
    (" is down", POOLER_UNAVAILABLE),
    ("server conn crashed", POOLER_LOST_SERVER),
)


RAISED_BY_CLIENT = "client"
RAISED_BY_OWN_READ_ONLY = "own read only"
OUTCOME_LOST = "outcome"
NOT_FOR_WRITING = "not for writing"
ROLLED_BACK = "rolled back"

_BY_ORIGIN = {OUTCOME_LOST: OUTCOME_UNKNOWN, ROLLED_BACK: NOT_COMMITTED, NOT_FOR_WRITING: NO_WRITER}


def mark(error: psycopg.Error, origin: str) -> None:
    """Note on an error where it came from, which only its connection knew.

    Args:
        error: as raised by psycopg.
        origin: `RAISED_BY_CLIENT` when libpq refused to send while the session is well, or
            `RAISED_BY_OWN_READ_ONLY` when the application itself asked for a read-only transaction,
            or `OUTCOME_LOST` when the session ended before a COMMIT, or a write outside
            a transaction, was answered; or `ROLLED_BACK` when such a COMMIT was looked up and has not
            happened; or `NOT_FOR_WRITING` when connecting found servers, but none that takes writes.
    """
    error._dbresilience_origin = origin  # type: ignore[attr-defined]


def classify(exc: BaseException) -> Classification:
    """Say what `exc` means for the connection, for a retry and for an HTTP client.

    Takes psycopg's and psycopg_pool's errors, Django's wrappers around them, and ours; anything
    else is `NOT_TRANSIENT`.
    """
    if isinstance(exc, AcquireTimeout) and exc.could_not_connect:
        return replace(CANNOT_CONNECT, retry_after_seconds=exc.retry_after_seconds)
    if isinstance(exc, (AcquireTimeout, TooManyWaiting)):
        return replace(POOL_EXHAUSTED, retry_after_seconds=exc.retry_after_seconds)
    if isinstance(exc, OutOfTime):
        return OUT_OF_TIME
    if isinstance(exc, DatabaseUnavailable):
        if isinstance(exc.__cause__, psycopg.ProgrammingError):
            return NOT_TRANSIENT  # a connection option that does not exist will not come into being
        found = classify(exc.__cause__) if exc.__cause__ is not None else UNAVAILABLE
        if found in (CONNECTION_LOST, DEADLINE_EXCEEDED):
            found = CANNOT_CONNECT
        elif not found.unavailable:
            # A request that never got a connection is refused whatever the reason was.
            found = UNAVAILABLE
        return replace(found, retry_after_seconds=found.retry_after_seconds or exc.retry_after_seconds)
    if isinstance(exc, (PoolTimeout, TooManyRequests)):
        return POOL_EXHAUSTED
    if isinstance(exc, PoolClosed):
        return UNAVAILABLE
    if isinstance(exc, psycopg.Error):
        return _classify_psycopg(exc)
    if isinstance(exc, CommitOutcomeUnknown):
        return OUTCOME_UNKNOWN
    if isinstance(exc, PinnedConnectionLost):
        return NOT_TRANSIENT
    if isinstance(exc, DatabaseError | InterfaceError):
        if isinstance(exc.__cause__, psycopg.Error | DatabaseUnavailable):
            return classify(exc.__cause__)
        # With a cause that is not psycopg's it comes from another driver, of which we know nothing.
        if isinstance(exc, OperationalError | InterfaceError) and exc.__cause__ is None:
            return UNAVAILABLE
    return NOT_TRANSIENT


def is_fatal(severity: str | None) -> bool:
    """Whether a severity (never the localised one) says that the session is gone."""
    return severity in ("FATAL", "PANIC")


def is_session_lost(error: psycopg.Error) -> bool:
    """Whether the session ended instead of answering, as opposed to answering with an error."""
    if isinstance(error, StatementOverdue):
        return error.was_sent
    if error.sqlstate is not None:
        return is_fatal(error.diag.severity_nonlocalized)
    return _classify_psycopg(error) is CONNECTION_LOST


def was_sent(error: psycopg.Error) -> bool:
    """Whether the statement may have reached the server: False when psycopg found the connection closed before."""
    if isinstance(error, StatementOverdue):
        return error.was_sent
    return error.sqlstate is not None or "connection is closed" not in str(error)


def _classify_psycopg(exc: psycopg.Error) -> Classification:
    origin = getattr(exc, "_dbresilience_origin", None)
    if origin is not None:
        return _BY_ORIGIN.get(origin, NOT_TRANSIENT)
    if isinstance(exc, StatementOverdue):
        return DEADLINE_EXCEEDED if exc.was_sent else OUT_OF_TIME
    if isinstance(exc, ConnectionTimeout):
        return CANNOT_CONNECT
    if isinstance(exc, PasswordUnavailable):
        return CREDENTIALS
    code = exc.sqlstate
    if code is None:
        # libpq's own errors, EOF and refused connections among them, have no SQLSTATE.
        lost = type(exc) is psycopg.OperationalError or "connection is closed" in str(exc)
        return CONNECTION_LOST if lost else NOT_TRANSIENT
    fatal = is_fatal(exc.diag.severity_nonlocalized)
    if code in ("08P01", "XX000", "58000", "57P01"):
        text = str(exc).lower()
        for words, classification in _POOLER_TEXTS:
            if words in text:
                return classification
    if code == "08P01":
        return PROTOCOL
    if code == "0A000":
        return STALE_PLAN if exc.diag.source_function == "RevalidateCachedQuery" else NOT_TRANSIENT
    if code.startswith("08") and not fatal and exc.diag.severity_nonlocalized is not None:
        # dblink and foreign tables: another database is away, our own session is alive.
        return OTHER_SERVER_AWAY
    if code == "40001" and fatal:
        return SESSION_ENDED  # a standby ended this session for a recovery conflict
    found = BY_SQLSTATE.get(code, NOT_TRANSIENT)
    if fatal and not found.evict and found is not STARTING:
        return replace(found, evict=True)
    return found
