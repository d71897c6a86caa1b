"""docs/howto/ask-the-server.md: every query runs, and finds what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.places import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until

from .conftest import in_thread

PAGE = BASE_DIR / "docs" / "howto" / "ask-the-server.md"
QUERIES: dict[str, str] = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?```sql\n(.+?)```", PAGE.read_text(), re.M | re.S)
)


@pytest.fixture
def trouble(postgres: ThrowawayPostgres, database_url: str) -> Iterator[dict[str, int]]:
    """One session idle in a transaction, and another that waits for its lock; their process ids."""
    with ExitStack() as stack:
        idle = stack.enter_context(psycopg.connect(database_url, application_name="careless"))
        idle.execute("LOCK TABLE django_session")
        waiting = stack.enter_context(psycopg.connect(database_url, application_name="patient", autocommit=True))
        asks = in_thread(lambda: waiting.execute("SELECT count(*) FROM django_session"))
        blocked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        wait_until(lambda: postgres.execute(blocked)[0][0], what="a session that waits")
        yield {"idle": idle.info.backend_pid, "waiting": waiting.info.backend_pid}
        idle.rollback()
        asks.join(10)


def asking(url: str) -> psycopg.Connection[dict[str, Any]]:
    return psycopg.connect(url, autocommit=True, row_factory=psycopg.rows.dict_row)  # type: ignore[arg-type]


def rows_of(connection: psycopg.Connection[dict[str, Any]], query: str) -> list[dict[str, Any]]:
    return connection.execute(query).fetchall()  # type: ignore[arg-type]


def ask(url: str, title: str) -> list[dict[str, Any]]:
    with asking(url) as connection:
        return rows_of(connection, QUERIES[title])


def test_the_queries_find_what_they_are_for(trouble: dict[str, int], database_url: str) -> None:
    """Each by its heading on the page."""
    (full,) = ask(database_url, "How full is it?")
    assert (full["taken"], full["usable"]) >= (3, 97)
    names = {row["application_name"]: row["count"] for row in ask(database_url, "Who has the connections?")}
    assert names["careless"] == names["patient"] == 1
    assert [row["pid"] for row in ask(database_url, "What runs now, longest first?")] == [trouble["waiting"]]
    (careless,) = ask(database_url, "Who holds a transaction open and does nothing?")
    assert (careless["pid"], careless["last_query"]) == (trouble["idle"], "LOCK TABLE django_session")
    (wait,) = ask(database_url, "Who waits for whom?")
    assert (wait["pid"], wait["blocked_by"], wait["state"]) == (
        trouble["waiting"], trouble["idle"], "idle in transaction",
    )  # fmt: skip
    (since,) = ask(database_url, "What has happened since the statistics were reset?")
    assert since["deadlocks"] == 0
    assert ask(database_url, "Ending one") == []


def test_every_query_of_the_page_is_tried() -> None:
    """None is left out above."""
    assert set(QUERIES) == set(re.findall(r'ask\(database_url, "(.+?)"\)', Path(__file__).read_text()))
    assert PAGE.read_text().count("```sql") == len(QUERIES)


def test_an_ordinary_role_counts_the_same(
    trouble: dict[str, int], postgres: ThrowawayPostgres, database_url: str
) -> None:
    """As many as a superuser, who sees of what kind each is."""
    postgres.execute("CREATE ROLE passer_by LOGIN")
    url = database_url.replace("postgresql://postgres@", "postgresql://passer_by@")
    try:
        with asking(url) as role, asking(database_url) as superuser:
            full, holders = QUERIES["How full is it?"], QUERIES["Who has the connections?"]
            seen = {row["application_name"]: row for row in rows_of(role, holders)}
            assert (seen["careless"]["count"], seen["careless"]["state"]) == (1, None)
            every = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            # Whoever asked before may still be there for a moment.
            wait_until(lambda: rows_of(role, full) == rows_of(superuser, full), what="the same number of sessions")
            assert sum(row["count"] for row in rows_of(role, holders)) == rows_of(superuser, every)[0]["count"]
    finally:
        postgres.execute("DROP ROLE passer_by")
