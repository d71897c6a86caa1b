"""A batch: statements that wait until a result is asked for, and then go to the server together, in one round trip.

They travel in libpq's pipeline mode, in which each statement stays one by itself: a text that is not well formed cannot
reach into its neighbour. After an error the server skips what follows (PostgreSQL manual, "Pipeline Mode").
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from django.db.transaction import TransactionManagementError
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus
from psycopg.pq.abc import PGresult

from .committing import check_commit
from .errors import ROLLED_BACK, is_session_lost, mark
from .exchange import exchange
from .liveness import hand_over_notifications
from .rehearsing import NotSentYet
from .session_state import traits_of
from .slow_queries import shortened
from .transaction_ids import ID, read_id, refusal_of_id

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .lease import Lease
    from .messages import TextCursorMixin
    from .slow_queries import Frame, SlowQueryLog

_IDLE = int(TransactionStatus.IDLE)
_ACTIVE = int(TransactionStatus.ACTIVE)
_OK = int(ConnStatus.OK)
_ANSWERED = (int(ExecStatus.TUPLES_OK), int(ExecStatus.COMMAND_OK), int(ExecStatus.EMPTY_QUERY))
_FAILED = int(ExecStatus.FATAL_ERROR)
_ID = ID.encode()
_COMMIT = b"COMMIT"

IS_SUPPORTED = psycopg.Pipeline.is_supported()
"""Whether libpq has a pipeline mode (14 and later)."""

MOST_WAITING = 1000
MOST_BYTES = 1_000_000
"""So many are sent without being asked for: a loop over a million rows must not fill the memory."""


class Waiting(NamedTuple):
    """A statement that was executed, as far as its program can tell, and is not sent yet."""

    cursor: TextCursorMixin
    query: str
    params: Any
    text: bytes
    site: Frame | None
    """From where it was executed, if slow ones are logged."""


class Moment(NamedTuple):
    """What waited at some moment: the list, and how much was in it."""

    waiting: list[Waiting]
    number: int


class Batch:
    """The statements of one connection that wait.

    Args:
        connection: where they will go; None until their transaction takes one.
        wrapper: Django's, whose transaction it is.

    Attributes:
        waiting: what waits, in order.
        failed: the statement that failed, if one has.
        failure: its error, for the end of the block, until it is undone or was raised by whoever asked for its result.
        is_collecting: whether to ask for a result ends the function that asks, instead of sending what waits.
        has_ended_function: whether that has happened.
        answered: a statement and its result, for the function that executes it anew.
        is_open: whether more may come; one that is closed ends with what waits.
    """

    def __init__(self, connection: ResilientConnection | None, wrapper: Any) -> None:
        self.connection = connection
        self.wrapper = wrapper
        self.waiting: list[Waiting] = []
        self.failed: Waiting | None = None
        self.failure: psycopg.Error | None = None
        self.is_open = True
        self._blocks = 1
        self.is_collecting = self.has_ended_function = False
        self.answered: tuple[Waiting, PGresult] | None = None
        self._changes_rows, self._bytes = False, 0
        self._sent: tuple[list[Waiting], list[PGresult], int] = [], [], 0
        """What was sent last, its answers as far as they have come, and how many of them are of BEGIN."""
        self._slow: list[tuple[SlowQueryLog, Waiting, float, float]] = []

    def add(self, statement: Waiting, *, changes_rows: bool) -> None:
        """Let a statement wait."""
        self.waiting.append(statement)
        self._changes_rows = self._changes_rows or changes_rows
        self._bytes += len(statement.text)

    def now(self) -> Moment:
        """Return the moment, for `since`."""
        return Moment(self.waiting, len(self.waiting))

    def since(self, moment: Moment) -> list[Waiting]:
        """Return what waits and did not yet at that moment."""
        waiting, number = moment
        if waiting is self.waiting:
            return waiting[number:]
        known = {id(statement) for statement in waiting[:number]}  # some were sent or undone meanwhile
        return [statement for statement in self.waiting if id(statement) not in known]

    def end_function(self) -> None:
        """End the function that is called, if only its statement is wanted.

        Raises:
            NotSentYet: it is.
        """
        if self.is_collecting:
            self.has_ended_function = True
            raise NotSentYet

    @property
    def is_full(self) -> bool:
        """Whether it is time to send what waits."""
        return len(self.waiting) >= MOST_WAITING or self._bytes >= MOST_BYTES

    @property
    def query_under_way(self) -> str | None:
        """The first of what was sent last that has no result: the server is at it, or it failed."""
        waiting, answers, begins = self._sent
        done = max(sum(answer.status in _ANSWERED for answer in answers) - begins, 0)
        return waiting[done].query if done < len(waiting) else None

    def drop(self, *, back_to: str | None = None) -> None:
        """Forget what waits, since it is undone before it was done.

        Args:
            back_to: a statement that goes all the same with what was before it, if it waits, too.
        """
        kept = [number for number, statement in enumerate(self.waiting, 1) if statement.query == back_to]
        self.forget(self.waiting[kept[-1] if kept else 0 :])

    def forget(self, statements: Iterable[Waiting]) -> None:
        """Forget some of what waits; what does not wait any more is no mistake."""
        if self.waiting:
            forgotten = {id(statement) for statement in statements}
            self.waiting = [statement for statement in self.waiting if id(statement) not in forgotten]
            self._bytes = sum(len(statement.text) for statement in self.waiting)
        self._end_if_closed()

    def enter(self) -> Batch:
        """Let a block within that for which it was made use it, too; returns it."""
        self._blocks += 1
        return self

    def leave(self) -> None:
        """End a block; after the outermost one nothing more may come, and what waits is left to the transaction."""
        self._blocks -= 1
        if not self._blocks:
            self.is_open = False
            if self.wrapper.batch_to_come is self:
                self.wrapper.batch_to_come = None  # nothing was asked in it
            self._end_if_closed()

    def _end_if_closed(self) -> None:
        # It may be somebody else's connection by now.
        if not self.is_open and not self.waiting and self.connection is not None and self.connection.batch is self:
            self.connection.batch = None

    def move_to(self, connection: ResilientConnection) -> None:
        """Go on with another connection; only while nothing waits."""
        if self.connection is not None:
            self.connection.batch = None
        self.connection, connection.batch = connection, self

    def run(self, *, commit: bool = False) -> Generator[Any, Any, None]:
        """Send what waits, and give each cursor its result.

        Args:
            commit: whether to end the transaction in the same round trip.

        Raises:
            psycopg.Error: that of the first statement that failed; those behind it have not been executed.
        """
        connection: Any = self.connection
        pgconn, lease = connection.pgconn, connection.lease
        encoding = pgconn._encoding  # which a connection that was closed does not tell
        waiting, self.waiting, self._bytes = self.waiting, [], 0
        texts = [statement.text for statement in waiting]
        begins = not connection.autocommit and pgconn.transaction_status == _IDLE
        asks = self._changes_rows and not connection.autocommit and lease is not None and lease.lacks_transaction_id
        self._changes_rows = False
        if begins:
            texts.insert(0, connection._get_tx_start_command())
        if asks:
            texts.append(_ID)
        # Each is answered when it is done, which shows how long it took, the first with its way and BEGIN as if it went
        # alone; the last with the id, which has to be on its way before COMMIT begins.
        timed = range(begins, begins + len(waiting))
        flushed = {*timed[:-1]}
        if commit:
            flushed.add(len(texts) - 1)
            texts.append(_COMMIT)
        answers: list[PGresult] = []
        durations: list[float] = []
        self._sent = waiting, answers, int(begins)
        for statement in waiting:
            statement.cursor.note_sending()
        try:
            yield from exchange(pgconn, texts, timed=timed, flushed=flushed, answers=answers, durations=durations)
            if connection.may_hear:
                hand_over_notifications(connection)
        except psycopg.Error as error:
            # With all answers, or the one that says why there are no more, it is known what has happened.
            if len(answers) < len(texts) and all(answer.status != _FAILED for answer in answers):
                for statement in waiting:
                    statement.cursor.note_error(error, statement.query)
                raise
            if lease is not None:
                lease.discard = True
        finally:
            behind = answers[timed.stop :]
            # Also after a loss: who has the id can ask what became of it.
            if asks and behind and behind[0].status in _ANSWERED:
                lease.transaction_id = read_id(connection, behind[0])
            if lease is not None:
                lease.last_query = self.query_under_way or lease.last_query
            self._end_if_closed()
        if pgconn.status != _OK or pgconn.transaction_status == _ACTIVE:
            # The session ended behind its last answer. What was answered has happened; there is nothing more to come.
            if lease is not None:
                lease.discard = True
            pgconn.finish()  # and who gives it back says why it is closed
        if begins and answers[0].status not in _ANSWERED:
            raise self._failed(psycopg.errors.error_from_result(answers[0], encoding=encoding), commit=commit)
        for statement, result, seconds in zip(waiting, answers[begins:], durations, strict=False):
            failure = None
            try:
                statement.cursor.receive(result)
            except psycopg.Error as error:
                failure = error
                statement.cursor.note_error(error, statement.query)
                error.add_note(f"It was raised by a statement that had waited: {shortened(statement.query)}")
                self.failed = statement
                self._failed(error, commit=commit)
                raise
            finally:
                self._note_duration(statement, seconds, lease, failure)
                failure = None  # it refers to this frame
        if asks and behind[0].status not in _ANSWERED:
            raise self._failed(refusal_of_id(behind[0], encoding), commit=commit)
        if commit:
            if behind[-1].status not in _ANSWERED:
                raise psycopg.errors.error_from_result(behind[-1], encoding=encoding)
            check_commit(behind[-1])
        for statement in waiting:
            statement.cursor.note_stored(traits_of(statement.query, connection))

    def _failed(self, error: psycopg.Error, *, commit: bool) -> psycopg.Error:
        """Note and return the first error of what was sent, which is not that of COMMIT itself."""
        if commit and error.sqlstate is not None and is_session_lost(error):
            mark(error, ROLLED_BACK)  # the server said so in its place, so it never came to COMMIT
        if self.failure is None:
            self.failure = error
        if self.wrapper.in_atomic_block:
            # As Django does with an error of save(): whoever catches it cannot go on as if the statement had been done.
            self.wrapper.needs_rollback, self.wrapper.rollback_exc = True, error
        return error

    def is_told_by(self, error: BaseException | None) -> bool:
        """Whether `error` is the failure, or was raised because of it; Django's refusal to go on tells of nothing."""
        seen: list[BaseException] = []
        while error is not None and error not in seen and not isinstance(error, TransactionManagementError):
            if error is self.failure:
                return True
            seen.append(error)
            error = error.__cause__ or error.__context__
        return False

    def _note_duration(
        self, statement: Waiting, seconds: float, lease: Lease | None, failure: psycopg.Error | None
    ) -> None:
        wait_seconds = 0.0
        if lease is not None:
            wait_seconds = lease.note_statement(statement.query, seconds, perf_counter(), failure, statement.site)
        connection: Any = self.connection  # which what was sent has had
        log = connection.slow_query_log
        if log is not None and seconds >= log.threshold_seconds:
            self._slow.append((log, statement, seconds, wait_seconds))

    def report_slow(self) -> None:
        """Log what took long; not before the connection is free again, since who hears of it may query."""
        slow, self._slow = self._slow, []
        for log, statement, seconds, wait_seconds in slow:
            log.report(statement.cursor, statement.query, statement.params, seconds, wait_seconds, statement.site)
