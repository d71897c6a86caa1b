"""purity.py: what a SELECT may call and still be only a read."""

from __future__ import annotations

import pytest

from dbresilience.purity import calls_only_pure_functions


def test_djangos_own_functions_are_known() -> None:
    """Those its ORM writes, and the ones of its PostgreSQL module."""
    assert calls_only_pure_functions(
        "SELECT COALESCE(a, 1), LOWER(b), COUNT(*) FILTER (WHERE c), SUM(d) OVER (PARTITION BY e), "
        "JSONB_BUILD_OBJECT(f), ARRAY_AGG(g), TO_TSVECTOR(h), SIMILARITY(i, j), CAST(k AS numeric(10, 2)), "
        "EXTRACT(YEAR FROM l), DATE_TRUNC('day', m), CONCAT((n)::text, (o)::text), EXISTS(SELECT 1), RANDOM()"
    )


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1",
        "SELECT pg_catalog.lower(a)",
        "SELECT Lower ( a )",
        "SELECT a, (b + c) FROM d WHERE e IN (1, 2) AND (f OR g)",
        "SELECT ((1))",
    ],
)
def test_what_changes_nothing(query: str) -> None:
    """Known functions, groups, and words of SQL before a parenthesis."""
    assert calls_only_pure_functions(query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT pay(1)",
        "SELECT nextval('counter')",
        "SELECT lower(pay(1))",
        "SELECT shop.lower(a)",
        "SELECT not_pg_catalog.lower(a)",
        'SELECT "lower"(a)',
        "SELECT lower/* as they say */(pay)(1)",
        "SELECT pay -- as they say\n(1)",
        "SELECT bezahle_ä(1)",
        "SELECT älower(1)",
    ],
)
def test_what_may_change_something(query: str) -> None:
    """Functions that nobody knows, also under the name of a known one; names that are quoted or beside a comment."""
    assert not calls_only_pure_functions(query)


def test_too_much_is_seen_rather_than_too_little() -> None:
    """A literal that looks like a call is one."""
    assert not calls_only_pure_functions("SELECT 'pay(1)'")
