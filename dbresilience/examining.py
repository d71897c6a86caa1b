"""Asks a server what settings have to fit: slots, time-outs, encryption, and whether a pooler is in front."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import closing

from django.db import connections

from .aliases import Alias, every_alias, is_local
from .capacity import Processes
from .connection import ResilientConnection
from .facts import Facts, ServerFacts
from .resources import DatabaseResources, get_database_resources
from .slots import count_slots

_TIMES = (
    "statement_timeout", "lock_timeout", "transaction_timeout", "idle_session_timeout",
    "idle_in_transaction_session_timeout",
)  # fmt: skip
_SETTINGS = "SELECT name, setting::int FROM pg_settings WHERE name = ANY(%s)"
_ROLE = """
SELECT current_setting('server_version_num')::int, pg_backend_pid(), rolsuper,
    pg_is_in_recovery() OR current_setting('default_transaction_read_only') = 'on', quote_ident(rolname)
FROM pg_roles WHERE rolname = session_user
"""


def examine(given: Alias, processes: Processes) -> Facts:
    """Ask the server.

    Raises:
        psycopg.Error: it cannot be reached, or refuses.
    """
    resources = get_database_resources(given.name)
    with closing(resources.connect()) as connection:
        numbers = dict(connection.execute(_SETTINGS, [[*_TIMES, "tcp_keepalives_idle"]]).fetchall())
        slots, ours = count_slots(connection)
        number, pid, superuser, read_only, role = connection.execute(_ROLE).fetchone()
        # A pooler makes up a process id of its own.
        between = _mode(resources, connection) if pid != connection.session_pid else None
        server = ServerFacts(
            version=number,
            oldest_version=(connections[given.name].features.minimum_database_version or (0,))[0],
            slots=slots,
            in_use=ours,
            role=role,
            milliseconds={name: numbers[name] for name in _TIMES if name in numbers},
            superuser=superuser,
            read_only=read_only,
            local=_is_local(connection),
            encrypted=connection.pgconn.ssl_in_use,
            sslmode=connection.info.get_parameters().get("sslmode", "prefer"),
            pooler=between,
            keepalive_seconds=_keepalive_seconds(connection),
            server_keepalive_seconds=numbers.get("tcp_keepalives_idle"),
        )
    return Facts(
        given.name,
        resources.configuration,
        processes,
        _sizes(given),
        str(given.options.get("target_session_attrs") or "any"),
        server,
    )


def _sizes(given: Alias) -> Mapping[str, int]:
    """`max_size` of each alias that opens a pool to the same server."""
    neighbours = [alias for alias in every_alias() if alias.name != given.name and alias.is_ours]
    there = [alias for alias in neighbours if (alias.hosts, alias.ports) == (given.hosts, given.ports)]
    return {alias.name: alias.configuration.max_size for alias in (given, *there) if alias.configuration.pooled}


def _mode(resources: DatabaseResources, first: ResilientConnection) -> str:
    """How a pooler shares: in transaction mode two clients have the same session of the server in turn."""
    seen: dict[int, set[int]] = {}
    with closing(resources.connect()) as second:
        for _ in range(3):
            for client, connection in enumerate((first, second)):
                (pid,) = connection.execute("SELECT pg_backend_pid()").fetchone()
                seen.setdefault(pid, set()).add(client)
    if any(len(clients) > 1 for clients in seen.values()):
        return "transaction"
    return "session" if len(seen) == 2 else "unknown"


def _is_local(connection: ResilientConnection) -> bool:
    return is_local(connection.info.hostaddr or connection.info.host)


def _keepalive_seconds(connection: ResilientConnection) -> int | None:
    """Seconds of silence after which the system asks; 0 for never, None on a Unix socket."""
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6):
            return None
        if not copy.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE):
            return 0
        # Named otherwise on macOS.
        name = getattr(socket, "TCP_KEEPIDLE", None) or getattr(socket, "TCP_KEEPALIVE", None)
        return None if name is None else copy.getsockopt(socket.IPPROTO_TCP, name)
