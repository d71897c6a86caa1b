"""Does a statement leave something on its session that the next borrower would meet?

Recognised by the text: `SET` and `set_config` unless local to the transaction, session-level advisory
locks, temporary tables, `LISTEN`, `PREPARE`, cursors `WITH HOLD`, `LOAD` and `dblink_connect`. Not
recognised: the same done within a function, a `DO` block or `EXECUTE`, and what does not pass
through Django's or psycopg's `execute` on a connection of ours. Recognising too much is harmless: the
connection is kept for the request and cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql

if TYPE_CHECKING:
    from .connection import ResilientConnection

_LEAVES_STATE = re.compile(
    r"""
    (?:^|;)\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*          # at the start of a statement, after comments
    (?: SET\s+(?!LOCAL\b|TRANSACTION\b|CONSTRAINTS\b)
      | LISTEN\b | LOAD\b
      | PREPARE\s+(?!TRANSACTION\b)
      | CREATE\s+(?:OR\s+REPLACE\s+)?(?:(?:GLOBAL|LOCAL)\s+)?TEMP
      | DECLARE\b.*?\bWITH\s+HOLD\b )
    | \bINTO\s+(?:(?:GLOBAL|LOCAL)\s+)?TEMP(?:ORARY)?\b
    | \bpg_temp\.
    | \bpg_(?:try_)?advisory_lock
    | \bset_config\s*\((?![^()]*,\s*true\s*\))
    | \bdblink_connect
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)

_MOST_KNOWN = 1000  # texts; an ORM makes the same few again and again
_known: dict[str, bool] = {}


_READS = re.compile(
    r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*\(*\s*(?:SELECT|SHOW|EXPLAIN|VALUES|TABLE|FETCH|DECLARE|BEGIN|SET)\b",
    re.IGNORECASE | re.DOTALL,
)


def only_reads(query: Any) -> bool:
    """Return whether a statement plainly changes nothing that lasts; functions that a SELECT calls may."""
    return isinstance(query, str) and _READS.match(query) is not None


def leaves_state(query: Any, connection: psycopg.Connection[Any]) -> bool:
    """Return whether `query` is recognised as leaving state on its session."""
    if not isinstance(query, str):
        if isinstance(query, bytes):
            query = query.decode(errors="replace")
        elif isinstance(query, sql.Composable):
            query = query.as_string(connection)
        else:
            return True
    found = _known.get(query)
    if found is None:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        found = _known[query] = _LEAVES_STATE.search(query) is not None
    return found


def clean_session(connection: ResilientConnection, configure: Callable[[ResilientConnection], None]) -> None:
    """End all that a session was left with, its role included (PostgreSQL manual, DISCARD), and set it up anew.

    Raises:
        psycopg.Error: it could not be cleaned and must not be used again.
    """
    connection.needs_lease = False  # nobody has it, and it is not a former holder who asks
    connection.execute("DISCARD ALL")
    configure(connection)
    connection.needs_lease = True
    # What receivers of connection_created had set is gone, too.
    connection.announced = False
