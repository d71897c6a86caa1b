"""What a new session needs before anybody may use it: time zone, role, time-out, isolation level."""

from __future__ import annotations

from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured
from django.db.backends.postgresql.psycopg_any import IsolationLevel

from .conf import Configuration


def configure_session(
    connection: psycopg.Connection[Any],
    configuration: Configuration,
    timezone_name: str | None,
    role: str | None,
) -> bool:
    """Set what a new session needs, in one round trip, or none if it has it already."""
    wanted: dict[str, str] = {}
    if timezone_name and connection.info.parameter_status("TimeZone") != timezone_name:
        wanted["TimeZone"] = timezone_name
    if role:
        wanted["role"] = role
    if configuration.statement_timeout_seconds is not None:
        wanted["statement_timeout"] = f"{configuration.statement_timeout_seconds * 1000:.0f}ms"
    if not wanted:
        return False
    calls = ", ".join(["set_config(%s, %s, false)"] * len(wanted))
    values = [text for setting in wanted.items() for text in setting]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {calls}", values)  # only placeholders are interpolated
    return True


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
