"""PostgreSQL stands still: it accepts connections and statements, and answers nothing. Only our own clock can tell.

What a busy machine adds to every request is told by `/livez`, which needs no database.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site
from tests.support.visitor import Crowd, Visitor, percentile_seconds, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]

DEADLINE_SECONDS = 1.0
STREAMING = "SELECT count(*) FROM chat_message WHERE status = 'streaming'"


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_nobody_waits_longer_than_the_deadline(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres, worker_class: str
) -> None:
    """503 at the deadline; what needs no database is as quick as ever; all is well as soon as it goes on."""
    site = start_site(url=f"{database_url}?deadline_seconds={DEADLINE_SECONDS}", worker_class=worker_class)
    program = visitor_with_token(site)
    with Crowd(program, people=6) as readers, Crowd(Visitor(site), people=2, path="/livez") as others:
        readers.first(200, since=time.monotonic())
        postgres.freeze()
        frozen_at = time.monotonic()
        time.sleep(4)
        thawed_at = time.monotonic()
        postgres.thaw()
        assert readers.first(200, since=thawed_at) < 0.2
        well_at = time.monotonic()
        time.sleep(0.3)
    during = readers.told(since=frozen_at, until=thawed_at - DEADLINE_SECONDS)
    assert {answer.status for answer in during} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in during)
    assert set(readers.statuses(since=well_at)) == {200}
    assert set(others.statuses()) == {200}
    assert percentile_seconds(others.answers) < DEADLINE_SECONDS / 2
    assert percentile_seconds(readers.answers) - percentile_seconds(others.answers) <= DEADLINE_SECONDS + 0.2


def test_the_threads_are_free_after_the_deadline(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """A process with four threads is stuck until the deadline, and not after."""
    site = start_site(url=f"{database_url}?deadline_seconds={DEADLINE_SECONDS}", WEB_THREADS="4")
    program = visitor_with_token(site)
    postgres.freeze()
    with ThreadPoolExecutor() as people:
        refusals = list(people.map(program.ask, ["/api/threads"] * 4))
        assert [answer.status for answer in refusals] == [503] * 4
        assert max(answer.seconds for answer in refusals) <= DEADLINE_SECONDS + 0.2
        alive = list(people.map(program.ask, ["/livez"] * 4))
        assert [answer.status for answer in alive] == [200] * 4
        assert max(answer.seconds for answer in alive) < 0.3


def test_a_reply_under_way_is_not_waited_for_longer_either(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """The assistant's time and the deadline; the same question again gets the reply that could not be stored."""
    site = start_site(url=f"{database_url}?deadline_seconds={DEADLINE_SECONDS}", CHAT_AGENT_DELAY_SECONDS="1")
    program = visitor_with_token(site)
    database = str(conninfo_to_dict(database_url)["dbname"])
    ask = partial(program.ask, "/api/chat", body={"message": "What is 6*7?"}, Idempotency_Key=str(uuid.uuid4()))
    thinking = ask()
    assert thinking.status == 200
    ask = partial(program.ask, "/api/chat", body={"message": "What is 6*8?"}, Idempotency_Key=str(uuid.uuid4()))
    with ThreadPoolExecutor() as people:
        first = people.submit(ask)
        wait_until(lambda: postgres.execute(STREAMING, database=database) == [(1,)], what="the question to be stored")
        postgres.freeze()
        refused = first.result()
    assert refused.status == 503
    assert json.loads(refused.body)["outcome_unknown"]
    assert int(refused.headers["retry-after"]) >= 1
    # COMMIT and ROLLBACK have a second of their own.
    assert refused.seconds <= thinking.seconds + DEADLINE_SECONDS + 1.5
    postgres.thaw()
    wait_until(lambda: program.ask("/api/threads").status == 200, what="a 200")
    again = ask()
    assert (again.status, json.loads(again.body)["reply"]["status"]) == (200, "complete")
    assert again.seconds < thinking.seconds + 1


def test_once_it_is_known_a_503_takes_no_time(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """The first ones find out, for everybody who comes after."""
    site = start_site(url=f"{database_url}?deadline_seconds={DEADLINE_SECONDS}")
    program = visitor_with_token(site)
    postgres.freeze()
    known_at = time.monotonic() + DEADLINE_SECONDS + 1.3
    while time.monotonic() < known_at:
        program.ask("/api/threads")
    answers, others = zip(*[(program.ask("/api/threads"), program.ask("/livez")) for _ in range(150)], strict=True)
    assert {answer.status for answer in answers} == {503}
    assert percentile_seconds(answers) - percentile_seconds(others) <= 0.05


def test_a_short_freeze_is_only_a_wait(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """Shorter than the deadline, it costs nobody their answer."""
    site = start_site(url=f"{database_url}?deadline_seconds=5")
    with Crowd(visitor_with_token(site)) as readers:
        readers.first(200, since=time.monotonic())
        postgres.freeze()
        time.sleep(1.5)
        postgres.thaw()
        readers.first(200, since=time.monotonic())
    assert set(readers.statuses()) == {200}
