"""What a statement does, in one word of a short list, so that it can be a label."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from psycopg import sql

_OPERATIONS = frozenset({
    "ALTER", "ANALYZE", "BEGIN", "CALL", "CLOSE", "COMMENT", "COMMIT", "COPY", "CREATE", "DEALLOCATE",
    "DECLARE", "DELETE", "DISCARD", "DO", "DROP", "EXECUTE", "EXPLAIN", "FETCH", "GRANT", "INSERT", "LISTEN",
    "LOCK", "MERGE", "MOVE", "NOTIFY", "PREPARE", "REFRESH", "REINDEX", "RELEASE", "RESET", "REVOKE",
    "ROLLBACK", "SAVEPOINT", "SELECT", "SET", "SHOW", "START", "TABLE", "TRUNCATE", "UNLISTEN", "UPDATE",
    "VACUUM", "VALUES", "WITH",
})  # fmt: skip
_FIRST_WORD = re.compile(r"(?>[\s(;]+|--[^\n]*\n|/\*.*?\*/)*+([a-z]+)", re.IGNORECASE | re.DOTALL)
_MOST_LOOKED_AT = 300
"""Characters of a statement: keeping whole ones for the next time would keep megabytes of values."""


def operation_of(query: Any) -> str:
    """Return the first keyword of a statement, or ``OTHER``."""
    while isinstance(query, sql.Composed):
        query = next(iter(query), "")
    if isinstance(query, sql.SQL):
        query = query.as_string()
    if isinstance(query, bytes):
        query = query[:_MOST_LOOKED_AT].decode(errors="replace")
    return _first_word(query[:_MOST_LOOKED_AT]) if isinstance(query, str) else "OTHER"


@lru_cache(1000)
def _first_word(text: str) -> str:
    found = _FIRST_WORD.match(text)
    word = found[1].upper() if found else ""
    return word if word in _OPERATIONS else "OTHER"
