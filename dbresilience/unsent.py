"""The text of a statement that an error of one before it kept from being sent: Django's log of queries has it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from psycopg._queries import PostgresQuery
from psycopg.adapt import Transformer


def unsent(cursor: Any, query: Any, params: Any) -> PostgresQuery:
    """Return it with its values, or without them where these cannot be put into words: the connection may be closed."""
    transformer = Transformer.from_context(cursor)
    statement: PostgresQuery = cursor._query_cls(transformer)
    with suppress(Exception):
        statement.convert(query, params)
    if not statement.query:
        statement = PostgresQuery(transformer)
        statement.query = str(query).encode()
    return statement
