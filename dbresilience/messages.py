"""What goes to the server in one message: BEGIN with the first statement of a transaction, and behind the first that
changes rows the question for the transaction's id.

psycopg sends BEGIN alone and waits for its answer. Together they cost one round trip, and the cursor shows the
statement's own results, as if nothing else had been sent. PostgreSQL runs the statements of a simple query one after
the other until one fails (manual, "Multiple Statements in a Simple Query").
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.generators import execute
from psycopg.pq import DiagnosticField, ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGresult

from .batches import Batch, Waiting
from .executing import LeasedCursorMixin
from .session_state import may_wait, traits_of
from .slow_queries import frame_of_application
from .transaction_ids import ID, read_id

if TYPE_CHECKING:
    from .connection import ResilientConnection

# Plain numbers, since they are compared for each query and an enumeration's == is slow.
_IDLE = int(TransactionStatus.IDLE)
_FAILED = int(TransactionStatus.INERROR)
_REFUSED = int(ExecStatus.FATAL_ERROR)

# On lines of their own, since a statement may end in a comment.
_AND = b";\n"
_AND_ID = b"\n;" + ID.encode()

_UNREADABLE = (b"22", b"42")
"""Classes of SQLSTATE of a text that the server could not read to its end, and therefore not begin."""


class TextCursorMixin(LeasedCursorMixin):
    """Of cursors that put the values into the text (`psycopg.ClientCursor`), since only a text holds more than one."""

    _conn: ResilientConnection

    def _execute_gen(self, query: Any, params: Any = None, **kwargs: Any) -> Generator[Any, Any, None]:
        # psycopg's own step for this kind of cursor, without what it does for prepared statements.
        if self._is_psycopgs_alone(kwargs):
            yield from super()._execute_gen(query, params, **kwargs)
            return
        connection: Any = self._conn
        pgconn = self._pgconn
        if connection.autocommit:
            begins = asks = False
            yield from self._start_query(query)
        else:
            begins, asks = pgconn.transaction_status == _IDLE, self._asks_for_id(query)
            yield from self._start_query_with_begin(query) if begins else self._start_query(query)
        self._query = sent = self._convert_query(query, params)
        text = sent.query + _AND_ID if asks else sent.query
        pgconn.send_query(connection._get_tx_start_command() + _AND + text if begins else text)
        results = yield from execute(pgconn)
        if begins and results:
            if _must_go_alone(results, pgconn.transaction_status):
                results = yield from self._execute_alone(text)
            elif len(results) > 1:
                del results[0]
        if asks and len(results) > 1:
            self._lease.transaction_id = read_id(connection, results.pop())  # type: ignore[union-attr]  # who asks has one
        self._check_results(results)
        self._set_results(results)
        self._last_query = query

    def _is_psycopgs_alone(self, given: dict[str, Any]) -> bool:
        """Whether the statement is to be prepared, or its result to be binary, for which one text will not do."""
        connection: Any = self._conn
        return (
            connection._pipeline is not None
            or connection._prepared.prepare_threshold is not None
            or self.format is not Format.TEXT
            or bool(given.get("binary"))
        )

    def _start_query_with_begin(self, query: Any) -> Generator[Any, Any, None]:
        connection: Any = self._conn
        connection.begins_with_statement = True
        try:
            yield from self._start_query(query)
        finally:
            connection.begins_with_statement = False

    # Statements that wait

    def _joins(self, batch: Batch, query: Any, params: Any, given: dict[str, Any]) -> bool:
        if not batch.is_open or not may_wait(query) or self._is_psycopgs_alone(given):
            return False
        with self._conn.lock:  # as psycopg, for whoever shares a connection between threads
            self._join(batch, query, params)
        return True

    def _join(self, batch: Batch, query: str, params: Any) -> None:
        tuple(self._start_query_with_begin(query))  # a generator that sends nothing, since BEGIN goes with the batch
        self._last_query = query
        self._query = sent = self._convert_query(query, params)
        if batch.answered is not None and (batch.answered[0].query, batch.answered[0].params) == (query, params):
            result, batch.answered = batch.answered[1], None
            self.is_measured = True
            self._check_results([result])
            self._set_results([result])
            return
        traits = traits_of(query, self.connection)
        statement = Waiting(self, query, params, sent.query, None if self._log is None else frame_of_application())
        batch.add(statement, changes_rows=traits is not None and traits.changes_rows)
        self.waits = True

    def receive(self, result: PGresult) -> None:
        """Take the result of a statement that waited.

        Raises:
            psycopg.Error: it failed.
        """
        self._check_results([result])
        self.waits = False
        self._set_results([result])

    def _have_result(self) -> None:
        if not self.waits:
            return
        batch = self._conn.batch
        if batch is not None:
            batch.end_function()
            self._conn.send_waiting(asking=self)
        if self.waits:
            raise psycopg.InterfaceError(
                "The statement was not executed: one before it failed, or what it was part of was undone before."
            )

    def _fetch_pipeline(self) -> None:
        # Where psycopg asks for what its own pipelines have not fetched yet.
        if self.waits:
            self._have_result()
        elif self._conn._pipeline is not None:
            super()._fetch_pipeline()

    def fetchmany(self, size: int = 0) -> list[Any]:
        """Fetch as psycopg does."""
        # Django always asks once more than there is.
        return [] if 0 < self._rowcount <= self._pos else super().fetchmany(size)

    def nextset(self) -> bool | None:
        """Go on to the next result as psycopg does."""
        self._have_result()
        return super().nextset()

    # Django does not wrap errors of these; see `CursorWrapper.__getattr__`.

    @property
    def rowcount(self) -> int:
        """As psycopg has it."""
        self._have_result_as_django()
        return super().rowcount

    @property
    def description(self) -> Any:
        """As psycopg has it."""
        self._have_result_as_django()
        return super().description

    @property
    def statusmessage(self) -> str | None:
        """As psycopg has it."""
        self._have_result_as_django()
        return super().statusmessage

    def _have_result_as_django(self) -> None:
        if self.waits:
            batch = self._conn.batch
            with nullcontext() if batch is None else batch.wrapper.wrap_database_errors:
                self._have_result()

    def _execute_alone(self, text: bytes) -> Generator[Any, Any, list[PGresult]]:
        connection: Any = self._conn
        if self._pgconn.transaction_status == _FAILED:
            yield from connection._exec_command(b"ROLLBACK")
        if self._pgconn.transaction_status == _IDLE:
            yield from connection._exec_command(connection._get_tx_start_command())
        self._pgconn.send_query(text)
        results: list[PGresult] = yield from execute(self._pgconn)
        return results

    def _asks_for_id(self, query: Any) -> bool:
        lease = self._lease
        if lease is None or not lease.lacks_transaction_id or not isinstance(query, str):
            return False
        traits = traits_of(query, self.connection)
        return traits is not None and traits.changes_rows


def _must_go_alone(results: list[PGresult], status: int) -> bool:
    """Whether a statement has to be sent once more, after BEGIN, to have the answer that it would have had alone.

    The place that an error points at would be counted from BEGIN on, and a text that cannot be read does not even begin
    the transaction, which then would not have failed either. Nothing of the statement has happened in both cases. Where
    one text holds several, the first may have; there the place stays counted from BEGIN on.
    """
    last = results[-1]
    if len(results) == 1:
        if last.status != _REFUSED:
            return True  # the statement was empty
        return status == _IDLE and (last.error_field(DiagnosticField.SQLSTATE) or b"")[:2] in _UNREADABLE
    return (
        len(results) == 2
        and last.status == _REFUSED
        and status == _FAILED
        and last.error_field(DiagnosticField.STATEMENT_POSITION) is not None
    )
