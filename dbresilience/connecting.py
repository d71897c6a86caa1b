"""How an entry of ``settings.DATABASES`` becomes a pool and psycopg connections of ours."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import NO_DB_ALIAS

from .client import DatabaseClient
from .conf import OUR_KEYS, Configuration, age_and_pool
from .connection import ResilientConnection
from .credentials import password_source
from .hosts import host_order
from .identity import database_of, hashable
from .operators import OrderFile
from .process import is_under_test, keep
from .resources import DatabaseResources, obtain
from .session import SessionSetup, isolation_level, set_all, wanted_settings
from .slow_queries import SlowQueryLog
from .timestamps import adapters_in
from .transaction_ids import LookUps

if TYPE_CHECKING:
    from django.db.backends.postgresql.base import DatabaseWrapper as _Base

    from .lease import Lease
else:
    _Base = object


class ConnectingMixin(_Base):
    """Finds the pool of an alias; connects for it, and without one."""

    client_class = DatabaseClient

    _lease: Lease | None = None
    _resources: DatabaseResources | None = None
    _resources_key: Hashable = None

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
        if found is None or found.inherited or key != self._resources_key:
            # Copies, since tests change OPTIONS, and `pool` and `resilience` in it, in place.
            options = {
                name: dict(value) if isinstance(value, dict) else value for name, value in given["OPTIONS"].items()
            }
            key = (*key[:-1], options)
            # An age that changes later changes nothing for a pool that is there; Django's live server sets one.
            found = obtain(self.alias, hashable((given.get("CONN_MAX_AGE"), *key)), self._create_resources)
            self._resources, self._resources_key = found, key
        return found

    def _create_resources(self) -> DatabaseResources:
        given = {**self.settings_dict, "OPTIONS": dict(self.settings_dict["OPTIONS"])}
        self.check_settings()
        configuration = Configuration.from_settings(self.alias, given, debug=settings.DEBUG, testing=is_under_test())
        if configuration.pooled and given.get("CONN_MAX_AGE") != 0:
            raise ImproperlyConfigured(age_and_pool(self.alias, given["CONN_MAX_AGE"]))
        if self.alias == NO_DB_ALIAS:
            configuration = replace(configuration, pooled=False)
        arguments = {**self.get_connection_params(), "autocommit": True}
        timezone_name, role = self.timezone_name, given["OPTIONS"].get("assume_role")

        look_ups = LookUps(self.alias, wanted=configuration.commit_lookup)
        return DatabaseResources(
            alias=self.alias,
            configuration=configuration,
            database=database_of(given),
            isolation_level=isolation_level(given["OPTIONS"].get("isolation_level")),
            connect_arguments=lambda: arguments,
            configure=SessionSetup(configuration, timezone_name, role, look_ups),
            orders=OrderFile((*database_of(given), str(given["USER"] or "")), configuration.runtime_folder),
        )

    @property
    def _pooled(self) -> bool:
        return self.resources.pool is not None

    @property
    def pool(self) -> Any:
        """psycopg's pool of the current generation, as Django's own backend has it, or None."""
        if not self._pooled:
            return None
        # With a connection in hand this must not wait for another.
        if self._lease is not None:
            return self._lease.generation.psycopg_pool
        assert self.resources.pool is not None
        return self.resources.pool.psycopg_pool()

    # Connecting

    def get_connection_params(self) -> dict[str, Any]:
        """Return psycopg's arguments: Django's, without our options."""
        configuration = Configuration.from_settings(self.alias, self.settings_dict, debug=settings.DEBUG)
        params = super().get_connection_params()
        for key in OUR_KEYS & params.keys():
            del params[key]
        params["context"] = adapters_in(self.timezone, params["context"])
        params["connect_timeout"] = round(configuration.connect_timeout_seconds)
        params["log_addresses"] = configuration.log_addresses
        params["deadline_seconds"] = configuration.deadline_seconds
        source = password_source(self.alias, self.settings_dict, configuration)
        if source is not None:
            params.pop("password", None)
            params["password_source"] = source
        if (hosts := host_order(self.alias, params)) is not None:
            params["hosts"] = hosts
        if configuration.slow_query_seconds is not None:
            params["slow_query_log"] = SlowQueryLog(
                self.alias, configuration.slow_query_seconds, configuration.slow_query_parameters
            )
        return params

    def get_new_connection(self, conn_params: dict[str, Any]) -> Any:
        """Connect without the pool: ``pool=False``, and the connection that creates databases."""
        self.isolation_level = self.resources.isolation_level
        connection = ResilientConnection.connect(**conn_params | self._remembered(conn_params))
        if self.settings_dict["OPTIONS"].get("isolation_level") is not None:
            connection.isolation_level = psycopg.IsolationLevel(self.isolation_level.value)
        return connection

    def _remembered(self, conn_params: dict[str, Any]) -> dict[str, Any]:
        """Return what has learnt from connections of before, to go in place of its like that was just made."""
        known = self.resources.connect_arguments()
        remembered: dict[str, Any] = {}
        hosts, source = conn_params.get("hosts"), conn_params.get("password_source")
        # A subclass may have changed either.
        if hosts is not None and "hosts" in known and hosts.is_for_those_of(known["hosts"]):
            remembered["hosts"] = known["hosts"]
        if source is not None and "password_source" in known and source.setting == known["password_source"].setting:
            remembered["password_source"] = known["password_source"]
        return remembered

    def _configure_connection(self, connection: Any) -> bool:
        if self._pooled:
            return False  # done once for each physical connection, by the pool
        role = self.settings_dict["OPTIONS"].get("assume_role")
        return set_all(connection, wanted_settings(connection, self.resources.configuration, self.timezone_name, role))


keep(globals(), "ConnectingMixin")
