"""How a transaction ends: with an answer, or with a look at what became of it."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.pq.abc import PGresult

from .commits import settle
from .errors import CommitOutcomeUnknown, is_rolled_back, is_session_lost
from .liveness import is_alive
from .transaction_ids import ask_before_commit
from .units import current_unit, note_stored

if TYPE_CHECKING:
    from .lease import Lease

    _Connection = psycopg.Connection[Any]
else:
    _Connection = object


_IDLE = int(TransactionStatus.IDLE)
_COMMIT = b"COMMIT"


def check_commit(result: PGresult) -> None:
    """Take no COMMIT for one that the server has made a ROLLBACK, which it does without an error.

    Raises:
        psycopg.errors.InFailedSqlTransaction: it has.
    """
    if result.command_status == b"ROLLBACK":
        raise psycopg.errors.InFailedSqlTransaction(
            "The server has rolled the transaction back instead of committing it: a statement of it had failed, and "
            "whoever was told went on. Nothing of it is stored."
        )


class CommittingMixin(_Connection):
    """Commits and rolls back; remembers for `retry` what is stored for good."""

    lease: Lease | None = None

    writes = 0
    """Statements of this transaction that may have changed something: what it has to lose."""

    def commit(self) -> None:
        """Commit as psycopg does; if the answer never came, look up what became of it.

        Raises:
            CommitOutcomeUnknown: nobody can say whether it happened.
        """
        lease = self.lease
        if not self.writes:
            try:
                super().commit()
            except psycopg.Error as error:
                if lease is not None:
                    lease.last_error = error
                raise
            return
        itself: Any = self
        sent = False
        try:
            waits = itself.batch is not None and itself.batch.waiting
            if (
                lease is not None
                and lease.lacks_transaction_id
                and not waits  # then it is asked for with what waits
                and current_unit.get()
            ):
                ask_before_commit(itself, lease)
            # A session that had ended before COMMIT was sent has lost its transaction for certain.
            sent = is_alive(itself)
            super().commit()
        except psycopg.Error as error:
            if lease is not None:
                lease.last_error = error
                lease.discard = lease.discard or self.closed
            if not sent or is_rolled_back(error) or not (is_session_lost(error) or self.closed):
                if self.pgconn.transaction_status == _IDLE:
                    self._transaction_ended()  # what comes next is another, also without rollback()
                raise
            if not settle(itself, lease, error):
                raise
        self._transaction_ended()
        note_stored()

    def _exec_command(self, command: Any, *args: Any, **kwargs: Any) -> Generator[Any, Any, PGresult | None]:
        # Where COMMIT goes, also that of psycopg's own transaction().
        result: PGresult | None = yield from super()._exec_command(command, *args, **kwargs)
        if command == _COMMIT and result is not None:
            check_commit(result)
        return result

    def rollback(self) -> None:
        """Roll back as psycopg does."""
        super().rollback()
        self._transaction_ended()

    def _transaction_ended(self) -> None:
        """Forget what belonged to the transaction: the next one has another id."""
        self.writes = 0
        if self.lease is not None:
            self.lease.transaction_id = None

    @contextmanager
    def transaction(self, *args: Any, **kwargs: Any) -> Iterator[psycopg.Transaction]:
        """Run a transaction as psycopg does. Its COMMIT is not looked up; Django does not use it."""
        lease, is_outermost, is_done = self.lease, self.autocommit, False
        if lease is not None:
            lease.is_by_hand = True
        try:
            with super().transaction(*args, **kwargs) as transaction:
                yield transaction
                is_done = is_outermost and self.writes > 0
        except psycopg.Error as error:
            if is_done and is_session_lost(error):
                raise CommitOutcomeUnknown(
                    "The connection was lost after the COMMIT of psycopg's transaction() was sent."
                ) from error
            raise
        finally:
            if is_outermost:
                self.writes = 0

    def pipeline(self) -> Any:
        """Enter psycopg's pipeline mode, in which a connection cannot be exchanged."""
        if self.lease is not None:
            self.lease.is_by_hand = True
        return super().pipeline()
