"""What a statement's text says: does it write, and does it leave something on its session for the next borrower?

Recognised by the text: `SET` and `set_config` unless local to the transaction, session-level advisory
locks, temporary tables, `LISTEN`, `PREPARE`, cursors `WITH HOLD`, `LOAD` and `dblink_connect`. Not
recognised: the same done within a function, a `DO` block or `EXECUTE`, and what does not pass
through Django's or psycopg's `execute` on a connection of ours. Recognising too much is harmless: the
connection is kept for the request and cleaned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg import sql

from .purity import calls_only_pure_functions

if TYPE_CHECKING:
    from .connection import ResilientConnection

# What may stand before a statement that is certain to be what it looks like. A comment within a comment is none of it:
# only a parser can tell where that ends.
_BEFORE = r"(?:[\s(]|--[^\n]*\n|/\*(?:(?!\*/|/\*).)*\*/)*"
# Where seeing too much is harmless.
_PERHAPS_BEFORE = r"(?:\s|--[^\n]*\n|/\*.*?\*/)*"

_LEAVES_STATE = re.compile(
    rf"""
    (?:^|;){_PERHAPS_BEFORE}          # at the start of a statement, after comments
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

_ONLY_READS = re.compile(
    rf"{_BEFORE}(?:SELECT|SHOW|EXPLAIN|VALUES|TABLE|FETCH|DECLARE|BEGIN|SET|SAVEPOINT|RELEASE|ROLLBACK|WITH)\b",
    re.IGNORECASE | re.DOTALL,
)

_SELECT = re.compile(rf"{_BEFORE}(?:SELECT|VALUES|TABLE|WITH)\b", re.IGNORECASE | re.DOTALL)
_WRITES_ALL_THE_SAME = re.compile(r"\bINTO\b|\bANALY[ZS]E\b|\bEXECUTE\b", re.IGNORECASE)
_WRITES_WITHIN = re.compile(rf"{_BEFORE}WITH\b.*\b(?:INSERT|UPDATE|DELETE|MERGE)\b", re.IGNORECASE | re.DOTALL)
_CHANGES_ROWS = re.compile(
    rf"{_BEFORE}(?:(?:INSERT|UPDATE|DELETE|MERGE)\b"
    r"|WITH\b.*\b(?:INSERT\s+INTO|DELETE\s+FROM|MERGE\s+INTO|UPDATE\b.*\bSET)\b)",
    re.IGNORECASE | re.DOTALL,
)
_ONE_TRANSACTION = re.compile(
    rf"{_BEFORE}(?:SELECT|VALUES|TABLE|WITH|INSERT|UPDATE|DELETE|MERGE|COPY|TRUNCATE)\b", re.IGNORECASE | re.DOTALL
)
_BY_HAND = re.compile(
    rf"(?:^|;){_PERHAPS_BEFORE}"
    r"(?:BEGIN|START|COMMIT|END|ABORT|PREPARE\s+TRANSACTION|ROLLBACK(?!\s+(?:WORK\s+|TRANSACTION\s+)?TO\b))\b",
    re.IGNORECASE | re.DOTALL,
)
_GOES_ALONE = re.compile(rf"{_PERHAPS_BEFORE}COPY\b|.*\$\d", re.IGNORECASE | re.DOTALL)

_MOST_KNOWN = 1000  # texts; an ORM makes the same few again and again


class Traits(NamedTuple):
    """What a statement's text says about it."""

    leaves_state: bool
    writes: bool
    """Whether it may change something that lasts, by itself or by a function that is not known (see `purity`)."""
    changes_rows: bool = False
    """Whether it is one INSERT, UPDATE, DELETE or MERGE, so that another statement may follow in the same text."""
    is_by_hand: bool = False
    """Whether it begins or ends a transaction that Django does not know of."""
    stores_in_parts: bool = False
    """Whether a part of it may be stored although it fails: it writes, and is not one transaction for certain."""


_known: dict[str, Traits | None] = {}


def traits_of(query: Any, connection: psycopg.Connection[Any] | None) -> Traits | None:
    """Return what `query` is recognised to be; None for a plain read, which most are."""
    if not isinstance(query, str):
        query = _text_of(query, connection)
        if query is None:
            return Traits(leaves_state=True, writes=True, is_by_hand=True, stores_in_parts=True)
    try:
        return _known[query]
    except KeyError:
        pass
    writes = not _only_reads(query)
    found = Traits(
        leaves_state=_LEAVES_STATE.search(query) is not None,
        writes=writes,
        changes_rows=_CHANGES_ROWS.match(query) is not None and ";" not in query,
        is_by_hand=_BY_HAND.search(query) is not None,
        stores_in_parts=writes and (_ONE_TRANSACTION.match(query) is None or is_several(query)),
    )
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[query] = known = found if any(found) else None
    return known


def _text_of(query: Any, connection: psycopg.Connection[Any] | None) -> str | None:
    """Return the text of what psycopg takes for a query; None if it cannot be told."""
    if isinstance(query, bytes):
        return query.decode(errors="replace")
    if isinstance(query, sql.Composable):
        return query.as_string(connection)
    return query if isinstance(query, str) else None


def is_plain_read(query: Any, connection: psycopg.Connection[Any] | None = None) -> bool:
    """Whether `query` is one SELECT that stores nothing, so that it does no harm to ask it twice.

    A lock that it takes (`FOR UPDATE`) lasts no longer than its transaction.
    """
    text = _text_of(query, connection)
    return text is not None and _SELECT.match(text) is not None and _only_reads(text)


def _only_reads(text: str) -> bool:
    """Whether nothing that lasts can come of `text`. What cannot be told is taken for a write."""
    return (
        _ONLY_READS.match(text) is not None
        and not is_several(text)
        and _WRITES_ALL_THE_SAME.search(text) is None
        and _WRITES_WITHIN.match(text) is None
        and calls_only_pure_functions(text)
    )


def is_several(text: str) -> bool:
    """Whether `text` may hold several statements; a semicolon within a literal counts, which is harmless."""
    return ";" in text.rstrip().rstrip(";")


@lru_cache(_MOST_KNOWN)
def _may_wait(text: str) -> bool:
    traits = traits_of(text, None)
    return not is_several(text) and _GOES_ALONE.match(text) is None and (traits is None or not traits.is_by_hand)


def may_wait(query: Any) -> bool:
    """Whether a statement may go with others: it is one, and neither ends a transaction nor copies.

    The extended protocol, in which they go, takes `$1` for a parameter that is missing.
    """
    return isinstance(query, str) and _may_wait(query)


def clean_session(connection: ResilientConnection, configure: Callable[[ResilientConnection], None]) -> None:
    """End all that a session was left with, its role included (PostgreSQL manual, DISCARD), and set it up anew.

    Raises:
        psycopg.Error: it could not be cleaned and must not be used again.
    """
    connection.needs_lease = False  # nobody has it, and it is not a former holder who asks
    with psycopg.Cursor(connection) as cursor:  # not one of ours, to which this would be a write that may be lost
        cursor.execute("DISCARD ALL")
    # Whoever listened here hears nothing of what the next one listens to.
    connection._notify_handlers.clear()
    if connection._notifies_backlog is not None:
        connection._notifies_backlog.clear()
    configure(connection)
    connection.needs_lease = True
    # What receivers of connection_created had set is gone, too.
    connection.announced = False
