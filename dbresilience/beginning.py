"""When a transaction begins and what its end gives back: that of `atomic()` takes its connection with its first cursor.

Until then it holds none, so nothing that it does before, such as to ask a model or to wait for a lock, keeps one from
others; and one that asks nothing takes none at all.
"""

from __future__ import annotations

from asyncio import _get_running_loop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg.pq import TransactionStatus

from .batches import Batch
from .measures import TRANSACTION
from .opening import OpeningMixin

_IDLE = int(TransactionStatus.IDLE)


class BeginningMixin(OpeningMixin):
    """Begins transactions late, and ends them without asking for a connection."""

    @property
    def begins_later(self) -> bool:
        """Whether it is in a transaction that has taken no connection yet; asked by `resources` and `retry`."""
        return self._begins_later is not None

    def get_autocommit(self) -> bool:
        """Return the autocommit state, without taking a connection for the question."""
        if self._begins_later is not None:
            return False
        if self.connection is None and not self.in_atomic_block and self.settings_dict["AUTOCOMMIT"]:
            return True
        return super().get_autocommit()

    def set_autocommit(self, autocommit: bool, force_begin_transaction_with_broken_autocommit: bool = False) -> None:
        """Set autocommit; switching it on ends a transaction and with it the lease.

        A transaction of `atomic()`, which is what the second argument tells, takes its connection with its first
        cursor.
        """
        is_atomic = force_begin_transaction_with_broken_autocommit
        if autocommit:
            self._end_transaction()
            return
        if is_atomic and self._begin_later():
            return
        if self.batch is not None:
            self.batch.end_function()  # what begins a transaction is more than a statement
        self._busy += 1  # a cursor that the garbage collector closes must not end the lease just now
        try:
            super().set_autocommit(autocommit, is_atomic)
        finally:
            self._busy -= 1

    def _begin_later(self) -> bool:
        """Begin without a connection, if that may be."""
        if (
            self.connection is not None
            or self._pins  # which has its connection, or has lost it
            or not self.settings_dict["AUTOCOMMIT"]
            # Django refuses to begin there, and not only once the block has done half of its work.
            or _get_running_loop() is not None
        ):
            return False
        resources = self.resources
        if resources.pool is None:
            return False
        self.validate_no_atomic_block()
        self._forget_transaction()
        self.autocommit, self._begins_later = False, resources
        return True

    def _end_transaction(self) -> None:
        lease = self._lease
        if lease is not None and lease.connection.pgconn.transaction_status == _IDLE:
            # Django's way, without the checks and layers for a connection that is not there or not well.
            self.validate_no_atomic_block()
            lease.connection.set_autocommit(True)
            self._run_hooks_in_autocommit()
            self.release_if_unneeded(TRANSACTION)
        elif self.settings_dict["AUTOCOMMIT"] and self._lacks_connection:
            # Another is not taken just to set what every new one has; it might not be had, and that error would replace
            # the one which says what became of the transaction.
            self.validate_no_atomic_block()
            self._give_back()
            self.connection = self._begins_later = None
            self._run_hooks_in_autocommit()
        else:
            super().set_autocommit(True)
            self.release_if_unneeded(TRANSACTION)

    @property
    def _lacks_connection(self) -> bool:
        connection, lease = self.connection, self._lease
        return connection is None or (connection.closed and (lease is None or lease.discard))

    def _run_hooks_in_autocommit(self) -> None:
        self.autocommit = True
        if self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False

    def run_and_clear_commit_hooks(self) -> None:
        """Run `on_commit` functions, holding no connection meanwhile."""
        self.release_if_unneeded(TRANSACTION)
        super().run_and_clear_commit_hooks()

    def close(self) -> None:
        """Close as Django does; a transaction that has no connection yet has nothing to close, and goes on."""
        if self._begins_later is not None:
            self.validate_thread_sharing()
        else:
            super().close()

    def batch_transaction(self) -> Batch:
        """Let statements of the transaction wait until what is returned is left; see `batches`.

        One that has taken no connection yet takes it with the first of them.
        """
        if self._begins_later is None:
            self.ensure_connection()
            return self.connection.enter_batch(self)  # type: ignore[no-any-return]  # it is one of ours
        if self.batch_to_come is None:
            self.batch_to_come = Batch(None, self)
            return self.batch_to_come
        return self.batch_to_come.enter()  # it is that of a block around this one

    @contextmanager
    def temporary_connection(self) -> Iterator[Any]:
        """Lend a cursor as Django does; a transaction that takes its connection with it keeps that."""
        if self._begins_later is not None:
            with self.cursor() as cursor:
                yield cursor
        else:
            with super().temporary_connection() as cursor:
                yield cursor
