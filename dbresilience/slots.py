"""Asks a server how many connections it has for this site, and how many of them are taken."""

from __future__ import annotations

from .capacity import Slots
from .connection import ResilientConnection

# What a role may not see of others' sessions is NULL; whose they are is not. LEAST leaves out what is NULL.
_SLOTS = """
SELECT current_setting('max_connections')::int,
    current_setting('superuser_reserved_connections')::int
        + coalesce(current_setting('reserved_connections', true)::int, 0),
    (SELECT least(nullif(rolconnlimit, -1), nullif(datconnlimit, -1)) FROM pg_roles, pg_database
        WHERE rolname = session_user AND datname = current_database()),
    count(*) FILTER (WHERE usename <> session_user OR datname <> current_database()),
    count(*) FILTER (WHERE usename = session_user AND datname = current_database())
FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND usename IS NOT NULL AND datname IS NOT NULL
    AND coalesce(backend_type, 'client backend') = 'client backend'
"""


def count_slots(connection: ResilientConnection) -> tuple[Slots, int]:
    """Return the slots, and how many sessions this user has in this database, without the one that asks.

    Raises:
        psycopg.Error: the server cannot be asked.
    """
    ((most, reserved, limit, others, ours),) = connection.execute(_SLOTS).fetchall()
    return Slots(most, reserved, limit, others), ours
