"""A batch: statements that wait until a result is asked for, and then go to the server together, in one round trip.

They travel in libpq's pipeline mode, in which each statement stays one by itself: a text that is not well formed cannot
reach into its neighbour. After an error the server skips what follows (PostgreSQL manual, "Pipeline Mode").
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.generators import fetch, fetch_many, send
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from .errors import ROLLED_BACK, is_session_lost, mark
from .transaction_ids import ID, read_id

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .lease import Lease
    from .messages import TextCursorMixin

    _Connection = psycopg.Connection[Any]
else:
    _Connection = object

_IDLE = int(TransactionStatus.IDLE)
_OK = int(ConnStatus.OK)
_ANSWERED = (int(ExecStatus.TUPLES_OK), int(ExecStatus.COMMAND_OK), int(ExecStatus.EMPTY_QUERY))
_ID = ID.encode()
_COMMIT = b"COMMIT"

IS_SUPPORTED = psycopg.Pipeline.is_supported()
"""Whether libpq has a pipeline mode (14 and later)."""


class Waiting(NamedTuple):
    """A statement that was executed, as far as its program can tell, and is not sent yet."""

    cursor: TextCursorMixin
    query: str
    params: Any
    text: bytes


class NotSentYet(BaseException):
    """Ends a function of which only the statement is wanted (see `gathering`); no error, so that nobody handles it."""


class Batch:
    """The statements of one connection that wait.

    Args:
        connection: where they will go.

    Attributes:
        waiting: what waits, in order.
        is_collecting: whether to ask for a result ends the function that asks, instead of sending what waits.
        answered: a statement and its result, for the function that executes it anew.
        is_open: whether more may come; one that is closed ends with what waits.
    """

    def __init__(self, connection: ResilientConnection) -> None:
        self._connection = connection
        self.waiting: list[Waiting] = []
        self.is_open = True
        self.is_collecting = False
        self.answered: tuple[Waiting, PGresult] | None = None
        self._changes_rows = False

    def add(self, statement: Waiting, *, changes_rows: bool) -> None:
        """Let a statement wait."""
        self.waiting.append(statement)
        self._changes_rows = self._changes_rows or changes_rows

    def drop(self, *, back_to: str | None = None) -> None:
        """Forget what waits, since it is undone before it was done.

        Args:
            back_to: a statement that goes all the same with what was before it, if it waits, too.
        """
        kept = [number for number, statement in enumerate(self.waiting, 1) if statement.query == back_to]
        del self.waiting[kept[-1] if kept else 0 :]
        self._end_if_closed()

    def close(self) -> None:
        """Let nothing more in."""
        self.is_open = False
        self._end_if_closed()

    def _end_if_closed(self) -> None:
        if not self.is_open and not self.waiting:
            self._connection.batch = None

    def run(self, *, commit: bool = False) -> Generator[Any, Any, None]:
        """Send what waits, and give each cursor its result.

        Args:
            commit: whether to end the transaction in the same round trip.

        Raises:
            psycopg.Error: that of the first statement that failed; those behind it have not been executed.
        """
        connection: Any = self._connection
        pgconn, lease = connection.pgconn, connection.lease
        waiting, self.waiting = self.waiting, []
        texts = [statement.text for statement in waiting]
        begins = not connection.autocommit and pgconn.transaction_status == _IDLE
        asks = self._changes_rows and _asks_for_id(connection, lease)
        self._changes_rows = False
        if begins:
            texts.insert(0, connection._get_tx_start_command())
        if asks:
            texts.append(_ID)
        if commit:
            texts.append(_COMMIT)
        answers: list[PGresult] = []
        durations: list[float] = []
        try:
            yield from _exchange(pgconn, texts, answers, durations)
        finally:
            # Also after a loss: who has the id can ask what became of it.
            if asks and len(answers) > len(texts) - 1 - commit:
                answer = answers[len(texts) - 1 - commit]
                if answer.status in _ANSWERED:
                    lease.transaction_id = read_id(connection, answer)
            self._end_if_closed()
        if begins and answers[0].status not in _ANSWERED:
            raise psycopg.errors.error_from_result(answers[0], encoding=pgconn._encoding)
        for statement, result, seconds in zip(waiting, answers[begins:], durations[begins:], strict=False):
            try:
                statement.cursor.receive(statement, result, seconds)
            except psycopg.Error as error:
                error.add_note(f"It was raised by a statement that had waited: {_shortened(statement.query)}")
                if commit and error.sqlstate is not None and is_session_lost(error):
                    mark(error, ROLLED_BACK)  # the server said so in its place, so it never came to COMMIT
                raise
        if commit and answers[-1].status not in _ANSWERED:
            raise psycopg.errors.error_from_result(answers[-1], encoding=pgconn._encoding)


def _exchange(
    pgconn: Any, texts: list[bytes], answers: list[PGresult], durations: list[float]
) -> Generator[Any, Any, None]:
    pgconn.enter_pipeline_mode()
    try:
        for text in texts:
            pgconn.send_query_params(text, None)
            # So that each is answered as soon as it is done: it shows how long each took.
            pgconn.send_flush_request()
        pgconn.pipeline_sync()
        yield from send(pgconn)
        began = perf_counter()
        for _ in texts:
            answers.extend((yield from fetch_many(pgconn)))
            ended = perf_counter()
            durations.append(ended - began)
            began = ended
        yield from fetch(pgconn)
    finally:
        if pgconn.status == _OK and pgconn.transaction_status != TransactionStatus.ACTIVE:
            pgconn.exit_pipeline_mode()


def _asks_for_id(connection: ResilientConnection, lease: Lease | None) -> bool:
    return lease is not None and not connection.autocommit and lease.transaction_id is None and lease.looks_up_commits


def _shortened(query: str) -> str:
    text = " ".join(query.split())
    return text if len(text) <= 120 else text[:117] + "..."


class BatchingMixin(_Connection):
    """A connection whose statements may wait in a batch."""

    batch: Batch | None = None

    begins_with_statement = False
    """Whether the statement that is about to be sent, or to wait, brings BEGIN along (see `messages`)."""

    lease: Lease | None = None

    def send_waiting(self) -> None:
        """Send what waits in the batch, if anything does.

        Raises:
            psycopg.Error: that of the first statement that failed.
        """
        batch = self.batch
        if batch is None or not batch.waiting:
            return
        try:
            with self.lock:
                self.wait(batch.run())
        except psycopg.Error as error:
            if self.lease is not None:
                self.lease.last_error = error
            raise

    @contextmanager
    def batching(self) -> Iterator[Batch]:
        """Let statements wait within the block; what waits at its end is left to whoever ends the transaction."""
        if self.batch is not None and self.batch.is_open:
            yield self.batch
            return
        self.send_waiting()
        batch = self.batch = Batch(self)  # type: ignore[arg-type]  # a mixin of that class
        try:
            yield batch
        finally:
            batch.close()

    def _start_query(self) -> Any:
        if self.begins_with_statement or (self._autocommit and self.batch is None):
            return ()
        return self._start_query_after_batch()

    def _start_query_after_batch(self) -> Generator[Any, Any, None]:
        # Whatever is no statement of a text cursor (COPY, a named cursor) goes after what waits.
        if self.batch is not None and self.batch.waiting:
            yield from self.batch.run()
        yield from super()._start_query()

    def _commit_gen(self) -> Any:
        batch = self.batch
        if batch is not None and batch.waiting:
            yield from batch.run(commit=True)
        else:
            yield from super()._commit_gen()

    def _rollback_gen(self) -> Any:
        if self.batch is not None:
            self.batch.drop()
        yield from super()._rollback_gen()
