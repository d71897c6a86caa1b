"""Django's database wrapper with a lease: takes a connection when work starts, gives it back when
work ends.

`ResilienceMixin` goes before any wrapper derived from Django's PostgreSQL one, e.g. PostGIS.

Work starts with a cursor or a transaction. It ends when the last cursor is closed outside a
transaction, or with the outermost transaction. Between the two, Django sees an ordinary
connection; afterwards `connection.connection` is None, as after `close()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db.backends.postgresql.base import TIMESTAMPTZ_OID
from django.db.backends.postgresql.psycopg_any import IsolationLevel, register_tzloader
from django.db.backends.signals import connection_created
from django.utils.asyncio import async_unsafe
from psycopg.pq import Format, TransactionStatus

from . import cursors
from .connecting import ConnectingMixin
from .connection import ResilientConnection
from .errors import PinnedConnectionLost
from .identity import database_of
from .lease import Lease
from .resources import close_database
from .session import configure_session, isolation_level


class ResilienceMixin(ConnectingMixin):
    """Leases connections from this process's pool; see the module for when."""

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(settings_dict, *args, **kwargs)
        self._lease: Lease | None = None
        self._pins = 0
        self._busy = 0

    def close_pool(self) -> None:
        """Close this process's pools for this database; the next query opens them again."""
        if not self.in_atomic_block and self.autocommit:
            self._give_back()
        close_database(database_of(self.settings_dict), "close_pool() was called")

    @async_unsafe
    def connect(self) -> None:
        """Take a connection from the pool; the ceremony is for new physical ones only."""
        pool = self.resources.pool
        if pool is None:
            super().connect()
            return
        self.check_settings()
        self.in_atomic_block = False
        self.savepoint_ids = []
        self.atomic_blocks = []
        self.needs_rollback = False
        self.close_at = 0.0  # what is still held at the end of a request goes back then
        self.closed_in_transaction = False
        self.errors_occurred = False
        self.health_check_done = True
        self.run_on_commit = []
        if self._pins:
            raise PinnedConnectionLost("The pinned connection was closed; what was set on it is gone.")
        lease = pool.acquire()
        lease.holder = self
        self._lease = lease
        self.connection = lease.connection
        self.autocommit = True
        self._busy += 1  # receivers of connection_created query, too
        try:
            self._greet(lease.connection)
        except BaseException:
            lease.discard = True
            self._give_back()
            raise
        finally:
            self._busy -= 1

    def _greet(self, connection: ResilientConnection) -> None:
        level = self.settings_dict["OPTIONS"].get("isolation_level")
        self.isolation_level = IsolationLevel.READ_COMMITTED if level is None else isolation_level(level)
        if not connection.announced:
            if level is not None:
                connection.isolation_level = psycopg.IsolationLevel(self.isolation_level.value)
            self.init_connection_state()
            connection_created.send(sender=self.__class__, connection=self)
            connection.announced = True
        if not self.settings_dict["AUTOCOMMIT"]:
            self.set_autocommit(False)

    def ensure_timezone(self) -> bool:
        """Adopt a changed time zone; connections made before are not used again."""
        if not self._pooled:
            return super().ensure_timezone()
        if self._lease is None:
            return False
        self._lease.discard = True
        return configure_session(self._lease.connection, self.resources.configuration, self.timezone_name, None)

    # Giving back

    def release_if_unneeded(self) -> None:
        """Give the connection back unless a cursor, a transaction or a pin still needs it."""
        lease = self._lease
        if (
            lease is not None
            and lease.cursors <= 0
            and not self._pins
            and not self._busy
            and not self.in_atomic_block
            and self.autocommit
            and lease.pool.configuration.lease == "transaction"
            # A BEGIN or a COPY by hand keeps the connection until it ends or the request does.
            and lease.connection.pgconn.transaction_status in (TransactionStatus.IDLE, TransactionStatus.UNKNOWN)
        ):
            self._give_back()

    def _give_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        self.connection = None
        lease.pool.release(lease)

    def forget_connection(self) -> None:
        """In a forked child: the parent's connection is not ours."""
        self._lease = None
        self.connection = None
        self._resources = None
        if self.in_atomic_block:
            # The transaction goes on in the parent; here its block can only fail.
            self.closed_in_transaction = self.needs_rollback = True

    def _close(self) -> None:
        if self._lease is None:
            if self.connection is not None:
                with self.wrap_database_errors:
                    self.connection.close()
            return
        self._give_back()

    def close_if_health_check_failed(self) -> None:
        """Nothing to do for a lease: liveness is looked at when a connection is acquired."""
        if self._lease is None and self.connection is not None:
            super().close_if_health_check_failed()

    def get_autocommit(self) -> bool:
        """Return the autocommit state, without taking a connection for the question."""
        if self.connection is None and not self.in_atomic_block and self.settings_dict["AUTOCOMMIT"]:
            return True
        return super().get_autocommit()

    def set_autocommit(self, autocommit: bool, *args: Any, **kwargs: Any) -> None:
        """Set autocommit; switching it on ends a transaction and with it the lease."""
        super().set_autocommit(autocommit, *args, **kwargs)
        if autocommit:
            self.release_if_unneeded()

    def run_and_clear_commit_hooks(self) -> None:
        """Run `on_commit` functions, holding no connection meanwhile."""
        self.release_if_unneeded()
        super().run_and_clear_commit_hooks()

    @async_unsafe
    def create_cursor(self, name: str | None = None) -> Any:
        """Create a cursor that counts as use of the lease until it is closed."""
        if not name:
            return super().create_cursor()
        cursor_class = (
            cursors.LeasedServerBindingServerSideCursor
            if self.settings_dict["OPTIONS"].get("server_side_binding") is True
            else cursors.LeasedServerSideCursor
        )
        assert self.connection is not None
        cursor = cursor_class(self.connection, name=name, scrollable=False, withhold=self.connection.autocommit)
        loader = self.connection.adapters.get_loader(TIMESTAMPTZ_OID, Format.TEXT)
        if self.timezone != getattr(loader, "timezone", None):
            register_tzloader(self.timezone, cursor)
        return cursor

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep one connection for a block; see `dbresilience.pinned`."""
        self.ensure_connection()
        self._pins += 1
        try:
            yield
        finally:
            self._pins -= 1
            self.release_if_unneeded()

    def schema_editor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a schema editor; connections greet their receivers anew afterwards.

        Migrations create types (hstore, citext) whose adapters connection_created registers.
        """
        if self._pooled:
            assert self.resources.pool is not None
            for connection in self.resources.pool.physical.all():
                connection.announced = False
        return super().schema_editor(*args, **kwargs)

    def _cursor(self, name: str | None = None) -> Any:
        # Between connecting and the new cursor's count: what runs in ensure_connection() may query.
        self._busy += 1
        try:
            cursor = super()._cursor(name)  # type: ignore[misc]  # not in the stubs
        except BaseException:
            self._busy -= 1
            self.release_if_unneeded()
            raise
        self._busy -= 1
        return cursor

    def _prepare_cursor(self, cursor: Any) -> Any:
        try:
            return super()._prepare_cursor(cursor)  # type: ignore[misc]  # not in the stubs
        except BaseException:
            cursor.close()  # refused, for example in the wrong thread: it must not keep the lease
            raise
