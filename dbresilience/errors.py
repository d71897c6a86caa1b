"""What a database error means: SQLSTATE → class, what to do with the connection, HTTP status.

`classify(exc)` never reads the server's message text, which is translated; only the texts of
poolers, which are not, decide where PgBouncer and its like send one code for everything.
Codes and names: PostgreSQL manual, appendix A.
"""

from __future__ import annotations

from dataclasses import replace

import psycopg
from django.db import DatabaseError, InterfaceError, OperationalError
from django.db.transaction import TransactionManagementError
from psycopg.errors import ConnectionTimeout
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from .meanings import (
    BY_SQLSTATE,
    CANNOT_CONNECT,
    CONNECTION_LOST,
    CREDENTIALS,
    DEADLINE_EXCEEDED,
    NO_WRITER,
    NOT_COMMITTED,
    NOT_TRANSIENT,
    OTHER_SERVER_AWAY,
    OUT_OF_TIME,
    OUTCOME_UNKNOWN,
    POOL_EXHAUSTED,
    POOLER_FULL,
    POOLER_LOST_SERVER,
    POOLER_TEXTS,
    POOLER_UNAVAILABLE,
    PROTOCOL,
    SESSION_ENDED,
    STALE_PLAN,
    STARTING,
    UNAVAILABLE,
    Classification,
)
from .process import keep


class DatabaseUnavailable(OperationalError):
    """The database cannot serve this request now; the statement was not sent.

    Attributes:
        alias: of the database, or None.
        retry_after_seconds: what the alias is configured to tell clients, or None.
    """

    def __init__(self, *args: object, alias: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(*args)
        self.alias = alias
        self.retry_after_seconds = retry_after_seconds


class AcquireTimeout(DatabaseUnavailable):
    """No connection became free within the pool's `timeout`, or within what was left of the request's deadline.

    Attributes:
        could_not_connect: fewer than `max_size` were open, so what was lacking is the server.
    """

    could_not_connect = False


class TooManyWaiting(DatabaseUnavailable):
    """The pool's `max_waiting` requests were waiting already."""


class OutOfTime(DatabaseUnavailable):
    """The request's deadline had passed before it asked for this connection. A statement of an open transaction that is
    not sent any more is an OperationalError of the same class, `out_of_time`."""


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


def note_alias(error: BaseException, alias: str) -> None:
    """Note on an error of psycopg or Django which database it came from."""
    error._dbresilience_alias = alias  # type: ignore[attr-defined]


def alias_of(error: BaseException | None) -> str | None:
    """Return the alias of the database that `error`, or what caused it, came from; None if nobody has noted it."""
    while error is not None:
        alias = error.alias if isinstance(error, DatabaseUnavailable) else getattr(error, "_dbresilience_alias", None)
        if alias is not None:
            return str(alias)
        error = error.__cause__
    return None


def is_rolled_back(error: psycopg.Error) -> bool:
    """Whether it is certain that the transaction which `error` ended was not committed."""
    return getattr(error, "_dbresilience_origin", None) == ROLLED_BACK


def classify(exc: BaseException) -> Classification:
    """Say what `exc` means for the connection, for a retry and for an HTTP client.

    Takes psycopg's and psycopg_pool's errors, Django's wrappers around them, and ours; anything
    else is of class ``not_transient``.
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
    if error.sqlstate is not None and error.diag.severity_nonlocalized is not None:
        return is_fatal(error.diag.severity_nonlocalized)
    # Poolers do not send that field.
    return _classify_psycopg(error) in (CONNECTION_LOST, POOLER_LOST_SERVER, POOLER_UNAVAILABLE)


def is_answer(error: psycopg.Error) -> bool:
    """Whether the server itself said that the statement failed, so that nothing came of it."""
    return error.sqlstate is not None and error.diag.severity_nonlocalized == "ERROR"


def was_sent(error: psycopg.Error) -> bool:
    """Whether the statement may have reached the server: False when psycopg found the connection closed before, or
    when a pooler had no session for it."""
    if isinstance(error, StatementOverdue):
        return error.was_sent
    if getattr(error, "_dbresilience_never_sent", False):
        return False
    if error.sqlstate is not None:
        return _classify_psycopg(error) is not POOLER_FULL
    return "connection is closed" not in str(error)


def mark_never_sent(error: psycopg.Error) -> None:
    """Note that the connection was lost already when the statement was to be sent, which psycopg reports in the words
    that it has for one that was."""
    error._dbresilience_never_sent = True  # type: ignore[attr-defined]


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
        for words, classification in POOLER_TEXTS:
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


_EXCEPTIONS = [name for name, value in globals().items() if getattr(value, "__module__", None) == __name__]
keep(globals(), *(name for name in _EXCEPTIONS if isinstance(globals()[name], type)))
