"""How a statement runs: on a lease, timed, on a living connection, and sent again where that is safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread
from time import perf_counter
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from . import units
from .errors import (
    OUTCOME_LOST,
    RAISED_BY_CLIENT,
    RAISED_BY_OWN_READ_ONLY,
    CommitOutcomeUnknown,
    StatementOverdue,
    is_answer,
    is_session_lost,
    mark,
    mark_never_sent,
    was_sent,
)
from .liveness import LOOK_AFTER_SECONDS, is_alive
from .repeating import repeat
from .session_state import Traits, may_wait, traits_of
from .unsent import unsent

if TYPE_CHECKING:
    from .batches import Batch
    from .lease import Lease

    _Cursor = psycopg.Cursor[Any]
else:
    _Cursor = object


_IDLE = int(TransactionStatus.IDLE)
_OK = int(ConnStatus.OK)
_INTERRUPTED_WRITE = (
    "The connection was lost before a write outside a transaction was answered. The change may or may not have been "
    "stored; look before you do it again. Within transaction.atomic() the outcome could be looked up."
)


class LeasedCursorMixin(_Cursor):
    """What all of ours do."""

    _lease: Lease | None = None
    _counts = False
    """Whether the lease waits for this cursor to be closed."""

    waits = False
    """Whether its statement is in a batch and not sent yet (see `messages`)."""

    is_measured = False
    """Whether its statement was put down when it travelled with others, and only its result is asked for now."""

    can_move = True
    """Whether the cursor can go on with another connection."""

    _could_send = True

    def __init__(self, connection: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(connection, *args, **kwargs)
        self._log = getattr(connection, "slow_query_log", None)
        self._lease = getattr(connection, "lease", None)
        self._counts = self._lease is not None
        if self._lease is not None:
            self._lease.cursors += 1

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        """Execute as psycopg does; see `slow_queries` for what is timed, and `repeating` for what is sent again.

        Raises:
            CommitOutcomeUnknown: a write outside a transaction was sent and not answered.
        """
        batch = getattr(self._conn, "batch", None)
        if self.waits or batch is not None:
            self._send_waiting(before=query, params=params)
        started = perf_counter()
        traits, failure = self._begin(query, started), None
        try:
            if batch is None or not self._joins(batch, query, params, kwargs):
                super().execute(query, params, **kwargs)
        except psycopg.Error as error:
            failure = error
            self.note_error(error, query)
            self._failed(error, traits)
            if not repeat(self, super().execute, query, params, kwargs, error=error, started=started):
                raise
            failure = None
        finally:
            if not self.waits:
                self._ran(query, params, started, failure)
            failure = None  # it refers to this frame
        if traits is not None and not self.waits:
            self.note_stored(traits)
        return self

    def _joins(self, batch: Batch, query: Any, params: Any, given: dict[str, Any]) -> bool:
        """Whether the statement was executed by letting it wait in `batch`, or by an answer that is there already."""
        return False

    def executemany(self, query: Any, params_seq: Any, **kwargs: Any) -> Any:
        """Execute as psycopg does; the whole batch is one entry of the slow-query log."""
        self._send_waiting()
        started = perf_counter()
        traits, failure = self._begin(query, started), None
        try:
            super().executemany(query, params_seq, **kwargs)
        except psycopg.Error as error:
            failure = error
            self.note_error(error, query)
            if was_sent(error):
                self.note_stored(traits)
            raise
        finally:
            self._ran(query, None, started, failure)
            failure = None  # it refers to this frame
        self.note_stored(traits)

    @contextmanager
    def copy(self, statement: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Copy as psycopg does."""
        self._send_waiting()
        traits = self._begin(statement, perf_counter())
        with self._noting(statement), super().copy(statement, *args, **kwargs) as copy:
            yield copy
        self.note_stored(traits)

    def stream(self, query: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """Stream as psycopg does."""
        self._send_waiting()
        traits = self._begin(query, perf_counter())
        with self._noting(query):
            yield from super().stream(query, *args, **kwargs)
        self.note_stored(traits)

    @property
    def lease(self) -> Lease | None:
        """The lease whose connection it uses."""
        return self._lease

    @property
    def counts(self) -> bool:
        """Whether the lease waits for this cursor to be closed."""
        return self._counts

    def leave_lease(self) -> None:
        """Stop counting as use of the lease."""
        if self._counts and self._lease is not None:
            self._counts = False
            self._lease.cursors -= 1

    def close(self) -> None:
        """Close the cursor; the last one outside a transaction gives the connection back."""
        counted, self._counts = self._counts, False
        try:
            self._close_quietly()
        finally:
            if counted:
                self._lease.cursor_closed()  # type: ignore[union-attr]  # who is counted has one

    def _close_quietly(self) -> None:
        super().close()

    def __del__(self, *args: Any) -> None:
        """A cursor that nobody closed is no reason to keep the lease."""
        if self._counts:
            self._counts = False
            holder = self._lease.holder if self._lease is not None else None
            # The lease belongs to its thread; the garbage collector may run in any.
            if holder is not None and holder.thread is current_thread():
                self._lease.cursor_closed()  # type: ignore[union-attr]  # it has a holder

    def _ran(self, query: Any, params: Any, started: float, failure: psycopg.Error | None) -> None:
        """Log a slow statement. The wait for the connection belongs to the first of its lease."""
        wait_seconds = 0.0
        ended = perf_counter()
        lease = self._lease
        if lease is not None:
            wait_seconds = lease.note_statement(query, None if self.is_measured else ended - started, ended, failure)
            self.is_measured = False
        if self._log is not None and ended - started >= self._log.threshold_seconds:
            self._log.report(self, query, params, ended - started, wait_seconds)

    def _send_waiting(self, *, before: Any = None, params: Any = None) -> None:
        """Send what waits before a statement that does not wait itself; its time is not that statement's."""
        self.waits = False
        connection: Any = self._conn
        batch = getattr(connection, "batch", None)
        if batch is None or not batch.waiting:
            return
        if batch.is_full or not (batch.is_open and may_wait(before)):
            try:
                connection.send_waiting()
            except Exception:
                if before is not None:
                    self._query = unsent(self, before, params)
                raise

    def _begin(self, query: Any, now: float) -> Traits | None:
        lease = self._lease
        if lease is not None:
            if lease.holder is None:
                self._check_lease()
            if now - lease.seen_at > LOOK_AFTER_SECONDS:
                lease = self._on_living_connection(lease)
            lease.last_query = query
        connection: Any = self.connection
        self.note_sending()
        traits = traits_of(query, connection)
        if traits is not None:
            if traits.writes and not (connection.autocommit and connection.pgconn.transaction_status == _IDLE):
                connection.writes += 1
            if lease is None:
                return traits
            if traits.leaves_state:
                lease.note_session_state()
            if traits.is_by_hand:
                lease.is_by_hand = True
                lease.transaction_id = None
        return traits

    def _on_living_connection(self, lease: Lease) -> Lease:
        """Exchange a connection that died while nothing was asked of it: what was never sent may go elsewhere."""
        connection = lease.connection
        # Asked first, since libpq forgets it with the connection: within a transaction there is nothing to exchange.
        is_at_rest = connection.pgconn.transaction_status == _IDLE
        if (is_at_rest and not is_alive(connection)) or (connection.autocommit and connection.pgconn.status != _OK):
            holder = lease.holder
            if holder is not None and holder.can_exchange(self):
                holder.exchange_connection(self)
        assert self._lease is not None
        return self._lease

    def move_to(self, connection: Any) -> None:
        """Go on with another connection, as if the cursor had been opened on it."""
        counted, arraysize, form = self._counts, self.arraysize, self.format
        self.__init__(connection, row_factory=self.row_factory)  # type: ignore[misc]  # the same object, for whoever wraps it
        self.arraysize, self.format = arraysize, form
        if not counted:
            self.leave_lease()

    def note_stored(self, traits: Traits | None) -> None:
        """Remember what is stored for good, since it was no part of a transaction."""
        if traits is not None and traits.writes and self.connection.autocommit:
            units.note_stored()

    def _failed(self, error: psycopg.Error, traits: Traits | None) -> None:
        if traits is not None and traits.stores_in_parts and was_sent(error):
            self.note_stored(traits)

    def _check_lease(self) -> None:
        if self._lease is not None and self._lease.holder is None:
            raise psycopg.InterfaceError("The connection of this cursor was given back to its pool.")

    @contextmanager
    def _noting(self, query: Any) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            self.note_error(error, query)
            raise

    def note_sending(self) -> None:
        """Look at the connection before something is sent, since afterwards psycopg has one text for both."""
        self._could_send = self.connection.pgconn.status == _OK

    def note_error(self, error: psycopg.Error, query: Any) -> None:
        """Remember the error for the end of the lease, with what only the connection knows."""
        connection = self.connection
        if not self._could_send:
            mark_never_sent(error)
        if self._lease is not None:
            self._lease.last_error = error
        if error.sqlstate is None and connection.pgconn.status == ConnStatus.OK:
            if not isinstance(error, StatementOverdue):
                mark(error, RAISED_BY_CLIENT)
            if (
                isinstance(error, psycopg.ProgrammingError)
                and connection.pgconn.transaction_status == TransactionStatus.ACTIVE
            ):
                connection.close()  # the server copies, nobody reads it, and nothing else can be asked
        elif (
            connection.autocommit
            and (is_session_lost(error) or (connection.pgconn.status != ConnStatus.OK and not is_answer(error)))
            and was_sent(error)
        ):
            traits = traits_of(query, connection)
            if traits is not None and traits.writes:
                mark(error, OUTCOME_LOST)
                raise CommitOutcomeUnknown(_INTERRUPTED_WRITE) from error
        elif error.sqlstate == "25006" and not getattr(connection, "is_read_only_server", True):
            mark(error, RAISED_BY_OWN_READ_ONLY)
