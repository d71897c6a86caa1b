"""Django's database wrapper with a lease: takes a connection when work starts, gives it back when
work ends.

`ResilienceMixin` goes before any wrapper derived from Django's PostgreSQL one, e.g. PostGIS.

Work starts with a cursor or a transaction. It ends when the last cursor is closed outside a
transaction, or with the outermost transaction. Between the two, Django sees an ordinary
connection; afterwards `connection.connection` is None, as after `close()`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from django.conf import settings
from django.db.backends.base.base import NO_DB_ALIAS
from django.db.backends.postgresql.base import TIMESTAMPTZ_OID
from django.db.backends.postgresql.psycopg_any import IsolationLevel, register_tzloader
from django.db.backends.signals import connection_created
from django.utils.asyncio import async_unsafe
from psycopg.pq import Format, TransactionStatus

from . import connection as connections_of_ours
from .conf import OUR_KEYS, Configuration
from .connection import ResilientConnection
from .identity import database_of, hashable
from .lease import Lease
from .pool import PoolRetired
from .resources import DatabaseResources, close_database, obtain
from .session import configure_session, isolation_level
from .slow_queries import SlowQueryLog

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as _Base
else:
    _Base = object


class ResilienceMixin(_Base):
    """Leases connections from this process's pool; see the module for when."""

    def __init__(self, settings_dict: dict[str, Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(settings_dict, *args, **kwargs)
        self._lease: Lease | None = None
        self._resources: DatabaseResources | None = None
        self._resources_key: Hashable = None

    # Which pool

    @property
    def resources(self) -> DatabaseResources:
        """This process's resources for the alias, looked up again when the settings change."""
        given = self.settings_dict
        key = (
            given["NAME"], given["HOST"], given["PORT"], given["USER"], given["PASSWORD"],
            self.timezone_name, settings.DEBUG, given["OPTIONS"],
        )  # fmt: skip
        found = self._resources
        if found is None or found.retired or key != self._resources_key:
            # A copy, since tests change OPTIONS in place.
            key = (*key[:-1], dict(given["OPTIONS"]))
            found = obtain(self.alias, hashable(key), self._create_resources)
            self._resources, self._resources_key = found, key
        return found

    def _create_resources(self) -> DatabaseResources:
        given = {**self.settings_dict, "OPTIONS": dict(self.settings_dict["OPTIONS"])}
        configuration = Configuration.from_settings(self.alias, given, debug=settings.DEBUG)
        if self.alias == NO_DB_ALIAS:
            configuration = replace(configuration, pooled=False)
        arguments = {**self.get_connection_params(), "autocommit": True}
        timezone_name, role = self.timezone_name, given["OPTIONS"].get("assume_role")

        def configure(connection: ResilientConnection) -> None:
            configure_session(connection, configuration, timezone_name, role)

        return DatabaseResources(
            alias=self.alias,
            configuration=configuration,
            database=database_of(given),
            connect_arguments=lambda: arguments,
            configure=configure,
        )

    @property
    def _pooled(self) -> bool:
        return self.alias != NO_DB_ALIAS and self.resources.pool is not None

    @property
    def pool(self) -> Any:
        """psycopg's pool of the current generation, as Django's own backend has it, or None."""
        if not self._pooled:
            return None
        assert self.resources.pool is not None
        return self.resources.pool.connections()

    def close_pool(self) -> None:
        """Close this process's pools for this database; the next query opens them again."""
        self._give_back()
        close_database(database_of(self.settings_dict), "close_pool() was called")

    # Connecting

    def get_connection_params(self) -> dict[str, Any]:
        """Return psycopg's arguments: Django's, without our options and with our cursors."""
        given = self.settings_dict["OPTIONS"]
        configuration = Configuration.from_settings(self.alias, self.settings_dict, debug=settings.DEBUG)
        params = super().get_connection_params()
        for key in OUR_KEYS & params.keys():
            del params[key]
        server_side = given.get("server_side_binding") is True
        if "cursor_factory" not in given:
            params["cursor_factory"] = (
                connections_of_ours.LeasedServerBindingCursor if server_side else connections_of_ours.LeasedCursor
            )
        # libpq's smallest value is 2 seconds; smaller ones mean "wait for ever" or 2.
        params["connect_timeout"] = max(2, round(configuration.connect_timeout_seconds))
        params["log_addresses"] = configuration.log_addresses
        if configuration.slow_query_seconds is not None:
            params["slow_query_log"] = SlowQueryLog(
                self.alias, configuration.slow_query_seconds, configuration.slow_query_parameters
            )
        return params

    @async_unsafe
    def connect(self) -> None:
        """Take a connection from the pool; the ceremony is for new physical ones only."""
        if not self._pooled:
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
        lease = self._acquire()
        lease.holder = self
        self._lease = lease
        self.connection = lease.connection
        self.autocommit = True
        lease.pins += 1
        try:
            self._greet(lease.connection)
        except BaseException:
            lease.discard = True
            self._give_back()
            raise
        lease.pins -= 1

    def _acquire(self) -> Lease:
        while True:
            pool = self.resources.pool
            assert pool is not None
            try:
                return pool.acquire()
            except PoolRetired:
                continue

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

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect without the pool: ``pool=False``, and the connection that creates databases."""
        self.isolation_level = IsolationLevel.READ_COMMITTED
        connection = ResilientConnection.connect(**conn_params)
        level = self.settings_dict["OPTIONS"].get("isolation_level")
        if level is not None:
            self.isolation_level = isolation_level(level)
            connection.isolation_level = psycopg.IsolationLevel(self.isolation_level.value)
        return connection

    def _configure_connection(self, connection: Any) -> bool:
        if self._pooled:
            return False  # done once for each physical connection, by the pool
        configuration = Configuration.from_settings(self.alias, self.settings_dict, debug=settings.DEBUG)
        role = self.settings_dict["OPTIONS"].get("assume_role")
        return configure_session(connection, configuration, self.timezone_name, role)

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
            and not lease.pins
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
        self.in_atomic_block = False
        self.atomic_blocks = []
        self.savepoint_ids = []
        self.needs_rollback = False
        self.run_on_commit = []
        self._resources = None

    def _close(self) -> None:
        if self._lease is None:
            if self.connection is not None:
                with self.wrap_database_errors:
                    self.connection.close()
            return
        self._give_back()

    def close_if_health_check_failed(self) -> None:
        """Nothing to do with a pool: liveness is looked at when a connection is acquired."""
        if not self._pooled:
            super().close_if_health_check_failed()

    def get_autocommit(self) -> bool:
        """Return the autocommit state, without taking a connection for the question."""
        if self.connection is None and self._pooled and not self.in_atomic_block:
            return bool(self.settings_dict["AUTOCOMMIT"])
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
            connections_of_ours.LeasedServerBindingServerSideCursor
            if self.settings_dict["OPTIONS"].get("server_side_binding") is True
            else connections_of_ours.LeasedServerSideCursor
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
        lease = self._lease
        if lease is not None:
            lease.pins += 1
        try:
            yield
        finally:
            if lease is not None:
                lease.pins -= 1
                self.release_if_unneeded()
