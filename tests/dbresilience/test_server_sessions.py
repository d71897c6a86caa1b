"""server_sessions.py: every session is counted, whoever asks, and a distant server's answer does not come and go."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import psycopg
import pytest

from dbresilience.overview import overview
from dbresilience.server_sessions import LONGEST_AGE_SECONDS, MOST_GROUPS, ask_server
from tests.dbresilience.conftest import Command, MakeWrapper
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy

DISTANCE_SECONDS = 0.05
"""To the server and back is twice that: another continent."""


@pytest.fixture
def url_of_onlooker(postgres: ThrowawayPostgres, database_url: str) -> Iterator[str]:
    """The database as an ordinary role sees it."""
    postgres.execute("CREATE ROLE onlooker LOGIN")
    yield database_url.replace("postgresql://postgres@", "postgresql://onlooker@")
    postgres.execute("DROP ROLE onlooker")


def test_an_ordinary_role_counts_the_sessions_of_others(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, url_of_onlooker: str
) -> None:
    """PostgreSQL hides their state from it, and of what kind they are; the server's own processes are no sessions."""
    resources = make_wrapper(url=url_of_onlooker).resources
    with ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(psycopg.connect(postgres.url("postgres"), application_name="another's"))
        seen = ask_server(resources, timeout_seconds=5)
        (there,) = postgres.execute("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'")
    (others,) = (group for group in seen.groups if group.application == "another's")
    assert (others.state, others.sessions, others.longest_transaction_seconds) == ("unknown", 3, 0)
    assert seen.sessions == sum(group.sessions for group in seen.groups)
    # But for the session of `execute`, which was not there yet.
    assert seen.sessions == there[0] - 1
    assert seen.sessions == seen.slots.others


def test_all_sessions_are_counted_where_the_table_has_no_room(make_wrapper: MakeWrapper, database_url: str) -> None:
    """The table has the largest groups."""
    resources = make_wrapper().resources
    with ExitStack() as stack:
        for number in range(MOST_GROUPS + 3):
            stack.enter_context(psycopg.connect(database_url, application_name=f"one of many {number}"))
        seen = ask_server(resources, timeout_seconds=5)
        facts = overview(resources, server_timeout_seconds=5).facts()
    assert len(seen.groups) == MOST_GROUPS
    assert seen.sessions >= MOST_GROUPS + 3
    assert facts["server"]["sessions"] == seen.sessions


@pytest.mark.timed
def test_a_distant_server_stays_known_while_it_is_asked_again(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy
) -> None:
    """Who looks once a second, and waits for a part of that, sees it all the time; a frozen one not for long."""
    resources = make_wrapper(url=proxy.url(database_url)).resources
    proxy.delay(DISTANCE_SECONDS)
    assert ask_server(resources, timeout_seconds=5).state == "ok"
    states = []
    for _ in range(6):
        time.sleep(0.7)
        states.append(ask_server(resources, timeout_seconds=0.3).state)
    assert states == ["ok"] * 6
    assert len(proxy.opened_at) >= 3
    proxy.swallow()
    time.sleep(LONGEST_AGE_SECONDS)
    assert ask_server(resources, timeout_seconds=0.3).is_away


@pytest.mark.slow
@pytest.mark.timed
def test_status_waits_for_a_distant_server(command: Command, database_url: str, proxy: Proxy) -> None:
    """Nobody has asked before it, and it does not ask again."""
    proxy.delay(3 * DISTANCE_SECONDS)
    facts = json.loads(command("status", "--json", url=proxy.url(database_url)).stdout)
    assert facts["server"]["state"] == "ok"
