"""Django's database wrapper with a lease: takes a connection when work starts, gives it back when
work ends.

`ResilienceMixin` goes before any wrapper derived from Django's PostgreSQL one, e.g. PostGIS.

Work starts with a cursor or a transaction. It ends when the last cursor is closed outside a
transaction, or with the outermost transaction. Between the two, Django sees an ordinary
connection; afterwards `connection.connection` is None, as after `close()`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from threading import current_thread
from typing import Any

import psycopg
from django.db.backends.signals import connection_created
from psycopg.pq import TransactionStatus

from .errors import PinnedConnectionLost
from .exchanging import ExchangingMixin
from .identity import database_of
from .lease import Lease
from .resources import close_database
from .session import configure_session

# Plain numbers, since they are compared for each query and an enumeration's == is slow.
_AT_REST = (int(TransactionStatus.IDLE), int(TransactionStatus.UNKNOWN))


@cache
def _greeting_anew(editor_class: type[Any]) -> type[Any]:
    class SchemaEditor(editor_class):  # type: ignore[misc]  # a class that is not known before
        def __exit__(self, *exception: Any) -> None:
            super().__exit__(*exception)
            self.connection.greet_anew()

    return SchemaEditor


class ResilienceMixin(ExchangingMixin):
    """Leases connections from this process's pool; see the module for when."""

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(settings_dict, *args, **kwargs)
        self.thread = current_thread()
        self._lease: Lease | None = None
        self._pins = 0
        self._busy = 0

    def close_pool(self) -> None:
        """Close this process's pools for this database; the next query opens them again."""
        if not self.in_atomic_block and self.autocommit:
            self._give_back()
        close_database(database_of(self.settings_dict), "close_pool() was called")

    def connect(self) -> None:
        """Take a connection from the pool; the ceremony is for new physical ones only."""
        resources = self.resources
        if resources.pool is None:
            super().connect()
            return
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
        self._take()

    def _take(self) -> Lease:
        resources = self.resources
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
        try:
            connection = lease.connection
            if not connection.announced:
                if self.settings_dict["OPTIONS"].get("isolation_level") is not None:
                    connection.isolation_level = psycopg.IsolationLevel(self.isolation_level.value)
                self.init_connection_state()
                connection_created.send(sender=self.__class__, connection=self)
                connection.announced = True
            if not self.settings_dict["AUTOCOMMIT"]:
                self.set_autocommit(False)
        except BaseException:
            lease.discard = True
            self._give_back()
            raise
        finally:
            self._busy -= 1

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
        if lease is not None and lease.pool.lease_ends_with_transaction and self._is_unneeded(lease):
            self._give_back()

    def release_early(self) -> None:
        """Do so in the middle of a request, also if leases last as long as that; what is on the session stays."""
        lease = self._lease
        if lease is not None and not lease.needs_reset and self._is_unneeded(lease):
            self._give_back()

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

    def _give_back(self) -> None:
        lease, self._lease = self._lease, None
        if lease is None:
            return
        self.connection = None
        if lease.cursors > 0:
            lease.report_open_cursor()
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

    def close_if_unusable_or_obsolete(self) -> None:
        """Close as Django does, and also what was lost by an error that it does not know, `CommitOutcomeUnknown`."""
        if self._lease is None and self.connection is not None and self.connection.closed:
            self.errors_occurred = True
        super().close_if_unusable_or_obsolete()

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
        if autocommit:
            lease = self._lease
            if (lease is None or (lease.discard and lease.connection.closed)) and self._is_leasing:
                self._autocommit_without_connection()
            else:
                super().set_autocommit(autocommit, *args, **kwargs)
                self.release_if_unneeded()
            return
        self._busy += 1  # a cursor that the garbage collector closes must not end the lease just now
        try:
            super().set_autocommit(autocommit, *args, **kwargs)
        finally:
            self._busy -= 1

    @property
    def _is_leasing(self) -> bool:
        return bool(self.settings_dict["AUTOCOMMIT"]) and self._pooled

    def _autocommit_without_connection(self) -> None:
        """End a transaction whose connection is gone.

        Another is not taken just to set what every new one has; it might not be had, and that error would replace the
        one which says what became of the transaction.
        """
        self.validate_no_atomic_block()
        self._give_back()
        self.autocommit = True
        if self.run_commit_hooks_on_set_autocommit_on:
            self.run_and_clear_commit_hooks()
            self.run_commit_hooks_on_set_autocommit_on = False

    def run_and_clear_commit_hooks(self) -> None:
        """Run `on_commit` functions, holding no connection meanwhile."""
        self.release_if_unneeded()
        super().run_and_clear_commit_hooks()

    @contextmanager
    def pinned(self) -> Iterator[None]:
        """Keep one connection for a block; see `dbresilience.pinned`."""
        self._busy += 1
        try:
            self.ensure_connection()
            self._pins += 1
        finally:
            self._busy -= 1
        try:
            yield
        finally:
            self._pins -= 1
            self.release_if_unneeded()

    # Without time of their own, a savepoint that ran out of it would spoil the transaction around it.

    def _savepoint_rollback(self, sid: str) -> None:
        with self._time_to_clean_up():
            super()._savepoint_rollback(sid)  # type: ignore[misc]  # not in the stubs

    def _savepoint_commit(self, sid: str) -> None:
        # Django releases a savepoint also after it has rolled back to it.
        with self._time_to_clean_up():
            super()._savepoint_commit(sid)  # type: ignore[misc]  # not in the stubs

    def _time_to_clean_up(self) -> AbstractContextManager[None]:
        return nullcontext() if self.connection is None else self.connection.time_to_clean_up(even_if_over=True)

    def schema_editor(self, *args: Any, **kwargs: Any) -> Any:
        """Return a schema editor; connections greet their receivers anew afterwards.

        Migrations create types (hstore, citext) whose adapters connection_created registers.
        """
        self.greet_anew()
        editor = super().schema_editor(*args, **kwargs)
        editor.__class__ = _greeting_anew(type(editor))
        return editor

    def greet_anew(self) -> None:
        """Let each connection send connection_created again when it is taken next."""
        pool = self.resources.pool
        if pool is not None:
            for connection in pool.recovery.physical.all():
                connection.announced = False
