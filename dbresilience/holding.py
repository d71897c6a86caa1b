"""Which connection a wrapper holds: taken when work starts, exchanged if dead, given back when nothing needs it."""

from __future__ import annotations

from threading import current_thread
from typing import TYPE_CHECKING, Any

import psycopg
from django.db.backends.postgresql.base import TIMESTAMPTZ_OID
from django.db.backends.signals import connection_created
from django.db.backends.utils import debug_transaction
from psycopg.pq import Format, TransactionStatus

from .connecting import ConnectingMixin
from .errors import PinnedConnectionLost
from .lease import Lease
from .measures import CLOSE, LOST, REQUEST, RETRY
from .resources import DatabaseResources
from .timestamps import register_loader

if TYPE_CHECKING:
    from .batches import Batch
    from .executing import LeasedCursorMixin

# Plain numbers, since they are compared for each query and an enumeration's == is slow.
_AT_REST = (int(TransactionStatus.IDLE), int(TransactionStatus.UNKNOWN))

_OF_A_TRANSACTION = (
    "_begins_later", "atomic_blocks", "closed_in_transaction", "commit_on_exit", "errors_occurred", "in_atomic_block",
    "needs_rollback", "run_on_commit", "savepoint_ids",
)  # fmt: skip


class HoldingMixin(ConnectingMixin):
    """Holds a lease while a cursor, a transaction or a pin needs the connection."""

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(settings_dict, *args, **kwargs)
        self.thread = current_thread()
        self._lease: Lease | None = None
        self._pins = 0
        self._busy = 0
        self._begins_later: DatabaseResources | None = None
        """What the transaction will take its connection from, while it has taken none."""
        self.batch_to_come: Batch | None = None
        """What its statements are to wait in, once that transaction has its connection."""
        self._request_ends = False

    def connect(self) -> None:
        """Take a connection from the pool; the ceremony is for new physical ones only."""
        if self._begins_later is not None:
            self._begin(self._begins_later)
            return
        resources = self.resources
        if resources.pool is None:
            super().connect()
        else:
            self._forget_transaction()
            if self._pins:
                raise PinnedConnectionLost("The pinned connection was closed; what was set on it is gone.")
            self._take(resources)

    def _begin(self, resources: DatabaseResources) -> None:
        """Take the connection of a transaction that was begun without one."""
        try:
            self._take(resources).connection.set_autocommit(False)
        except BaseException:
            # Who goes on after this is still in that transaction.
            if self._lease is not None:
                self._lease.discard = True
                self._give_back()
            self.autocommit = False
            raise
        self.autocommit, self._begins_later = False, None
        if self.batch_to_come is not None:
            self.batch_to_come.move_to(self.connection)
            self.batch_to_come = None
        if self.queries_logged:
            with debug_transaction(self, "BEGIN"):
                pass  # it goes with the first statement

    def _forget_transaction(self) -> None:
        self.in_atomic_block = False
        self.savepoint_ids = []
        self.atomic_blocks = []
        self.needs_rollback = False
        self.close_at = 0.0  # what is still held at the end of a request goes back then
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.health_check_done = True
        self.run_on_commit = []

    def _take(self, resources: DatabaseResources) -> Lease:
        assert resources.pool is not None
        lease = resources.pool.acquire(self)
        self._lease = lease
        self.connection = lease.connection
        self.autocommit = True
        self.isolation_level = resources.isolation_level
        if not lease.connection.announced or not self.settings_dict["AUTOCOMMIT"]:
            self._greet(lease)
        return lease

    def _greet(self, lease: Lease) -> None:
        self._busy += 1  # receivers of connection_created query, too
        around = {name: getattr(self, name) for name in _OF_A_TRANSACTION} if self.in_atomic_block else {}
        if around:
            self._begins_later = None
            self._forget_transaction()
        try:
            connection = lease.connection
            if not connection.announced:
                if self.settings_dict["OPTIONS"].get("isolation_level") is not None:
                    connection.isolation_level = psycopg.IsolationLevel(self.isolation_level.value)
                self.init_connection_state()
                connection_created.send(sender=self.__class__, connection=self)
                if self._lease is not lease:
                    raise psycopg.InterfaceError("A receiver of connection_created has closed the connection.")
                connection.announced = True
            if not self.settings_dict["AUTOCOMMIT"]:
                self.set_autocommit(False)
        except BaseException:
            lease.discard = True
            self._give_back()
            raise
        finally:
            self._busy -= 1
            self.__dict__.update(around)

    def release_if_unneeded(self, why: str | None = None) -> None:
        """Give the connection back unless a cursor, a transaction or a pin still needs it."""
        lease = self._lease
        if lease is not None and lease.pool.lease_ends_with_transaction and self._is_unneeded(lease):
            self._lease = self.connection = None
            lease.pool.release(lease, why)

    def release_early(self) -> None:
        """Do so in the middle of a request, also if leases last as long as that; what is on the session stays."""
        lease = self._lease
        if lease is not None and not lease.needs_reset and self._is_unneeded(lease):
            self._give_back(RETRY)

    def _is_unneeded(self, lease: Lease) -> bool:
        return (
            lease.cursors <= 0
            and not self._pins
            and not self._busy
            and not self.in_atomic_block
            and self.autocommit
            and not lease.kept
            # A BEGIN or a COPY by hand keeps the connection until it ends or the request does.
            and lease.connection.pgconn.transaction_status in _AT_REST
        )

    @property
    def is_pinned(self) -> bool:
        """Whether a `pinned()` block keeps the connection."""
        return self._pins > 0

    @property
    def batch(self) -> Batch | None:
        """What its statements wait in, if they do."""
        return self.batch_to_come if self.connection is None else getattr(self.connection, "batch", None)

    def _give_back(self, why: str = LOST) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        self.connection = None
        if lease.cursors > 0:
            lease.report_open_cursor()
        lease.pool.release(lease, why)

    def forget_connection(self) -> None:
        """In a forked child: the parent's connection is not ours."""
        self._lease = None
        self.connection = None
        self._resources = self._begins_later = self.batch_to_come = None
        if self.in_atomic_block:
            # The transaction goes on in the parent; here its block can only fail.
            self.closed_in_transaction = self.needs_rollback = True

    def _close(self) -> None:
        if self._lease is None:
            if self.connection is not None:
                with self.wrap_database_errors:
                    self.connection.close()
            return
        self._give_back(REQUEST if self._request_ends else CLOSE)

    # Another connection in place of a dead one, for a statement that may go on with it

    def can_exchange(self, cursor: LeasedCursorMixin) -> bool:
        """Whether nothing but `cursor` depends on the connection, and nothing was left on its session."""
        lease = self._lease
        return (
            lease is not None
            and lease is cursor.lease
            and cursor.can_move
            and lease.cursors == int(cursor.counts)
            and not (self.is_bound or self._busy)
            and not (lease.connection.batch is not None and lease.connection.batch.waiting)
            and self.settings_dict["AUTOCOMMIT"]
        )

    @property
    def is_bound(self) -> bool:
        """Whether something was left on the connection's session, or a `pinned()` block keeps it."""
        lease = self._lease
        return self._pins > 0 or (lease is not None and (lease.needs_reset or lease.kept or lease.is_by_hand))

    def exchange_connection(self, cursor: LeasedCursorMixin) -> None:
        """Bury the connection and take another for `cursor`. Only if `can_exchange`.

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        lease, in_autocommit = self._lease, self.autocommit
        assert lease is not None
        self._busy += 1
        try:
            lease.cursors = 0
            lease.discard = True
            batch = lease.connection.batch
            # First, since two would need room for two.
            self._give_back()
            try:
                taken = self._take(self.resources)
                if not in_autocommit:
                    taken.connection.set_autocommit(False)
                    self.autocommit = False
            except BaseException:
                if self.in_atomic_block:
                    # As after close(): the block can only fail.
                    self.closed_in_transaction = self.needs_rollback = True
                raise
            taken.opened_by = lease.opened_by
            if batch is not None:
                batch.move_to(taken.connection)
            cursor.move_to(taken.connection)
            self.prepare_loaders(cursor)
        finally:
            self._busy -= 1

    def prepare_loaders(self, cursor: Any) -> None:
        """Let a new cursor load times in the time zone of this moment."""
        connection = cursor.connection
        if connection.timezone is not self.timezone:
            loader = connection.adapters.get_loader(TIMESTAMPTZ_OID, Format.TEXT)
            if self.timezone == getattr(loader, "timezone", None):
                connection.timezone = self.timezone
            else:
                register_loader(self.timezone, cursor.adapters)
