"""What a new session needs before anybody may use it: time zone, role, time-outs, isolation level."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql.psycopg_any import IsolationLevel
from psycopg import sql
from psycopg.pq import ConnStatus

from .conf import Configuration

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .transaction_ids import LookUps

NOTICES_LEAVING_SINCE = 140000
"""The first version with client_connection_check_interval (PostgreSQL manual, "Connection settings")."""


class SessionSetup:
    """Sets up the new sessions of one pool, all in one round trip.

    Args:
        configuration: the alias's.
        timezone_name: what sessions should have as TimeZone.
        role: whose privileges they should have, if not those of who connects.
        look_ups: what it is to be learnt of each session, in the same round trip.
    """

    def __init__(
        self, configuration: Configuration, timezone_name: str | None, role: str | None, look_ups: LookUps
    ) -> None:
        self._configuration = configuration
        self._timezone_name = timezone_name
        self._role = role
        self._look_ups = look_ups
        self._can_notice_leaving = configuration.client_check_seconds is not None

    def __call__(self, connection: ResilientConnection) -> None:
        """Set up one session.

        Raises:
            psycopg.Error: the server refuses what it should have, or was lost.
        """
        wanted = wanted_settings(connection, self._configuration, self._timezone_name, self._role)
        notices = _noticing(self._configuration) if self._can_notice_leaving and _may_notice(connection) else ""
        texts = [each for each in (_settings_text(connection, wanted), notices) if each]
        if self._look_ups.prepare(connection, *texts):
            return
        # Something of it is refused: one after the other, to know what.
        if wanted:
            set_all(connection, wanted)
        if notices:
            self._can_notice_leaving = _is_accepted(connection, notices)
        self._look_ups.prepare(connection)


def wanted_settings(
    connection: psycopg.Connection[Any], configuration: Configuration, timezone_name: str | None, role: str | None
) -> dict[str, str]:
    """Return the settings of PostgreSQL that a session should have and has not."""
    wanted: dict[str, str] = {}
    if timezone_name and connection.info.parameter_status("TimeZone") != timezone_name:
        wanted["TimeZone"] = timezone_name
    if role:
        wanted["role"] = role
    if configuration.statement_timeout_seconds is not None:
        wanted["statement_timeout"] = f"{configuration.statement_timeout_seconds * 1000:.0f}ms"
    return wanted


def set_all(connection: psycopg.Connection[Any], wanted: dict[str, str]) -> bool:
    """Set what a session should have, in one round trip; whether there was anything."""
    if wanted:
        _execute(connection, _settings_text(connection, wanted))
    return bool(wanted)


def _settings_text(connection: psycopg.Connection[Any], wanted: dict[str, str]) -> str:
    if not wanted:
        return ""
    calls = [
        sql.SQL("pg_catalog.set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in wanted.items()
    ]
    return (sql.SQL("SELECT ") + sql.SQL(", ").join(calls)).as_string(connection)


def _noticing(configuration: Configuration) -> str:
    # What somebody has set for the role or the database stays.
    milliseconds = f"{(configuration.client_check_seconds or 0) * 1000:.0f}"
    return (
        f"SELECT pg_catalog.set_config('client_connection_check_interval', '{milliseconds}', false)"
        " WHERE pg_catalog.current_setting('client_connection_check_interval') = '0'"
    )


def _may_notice(connection: psycopg.Connection[Any]) -> bool:
    return connection.info.server_version >= NOTICES_LEAVING_SINCE


def _is_accepted(connection: psycopg.Connection[Any], text: str) -> bool:
    try:
        _execute(connection, text)
    except psycopg.Error:
        if connection.pgconn.status != ConnStatus.OK:
            raise
        return False
    return True


def _execute(connection: psycopg.Connection[Any], text: str) -> None:
    # Not a cursor of ours, which would look for a lease, and no parameters, which some poolers do not take.
    with psycopg.ClientCursor(connection) as cursor:
        cursor.execute(text.encode())


def isolation_level(level: Any) -> IsolationLevel:
    """Return the level that ``OPTIONS["isolation_level"]`` names; READ COMMITTED if it is None."""
    if level is None:
        return IsolationLevel.READ_COMMITTED
    try:
        return IsolationLevel(level)
    except ValueError:
        raise ImproperlyConfigured(
            f"Invalid transaction isolation level {level} specified. Use one of the psycopg.IsolationLevel values."
        ) from None
