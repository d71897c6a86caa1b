"""Every slot of PostgreSQL is taken by others: a wait, one more try, then 503, however many processes ask."""

from __future__ import annotations

import time
from collections.abc import Callable

import psycopg
import pytest

from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.visitor import Crowd, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]

PROCESSES = 2


def test_few_attempts_and_back_when_there_is_room(
    start_site_behind: Callable[..., Site], proxy: Proxy, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """Attempts to connect do not grow with those who ask; a slot that becomes free is found within a second."""
    # So that what they keep open now does not hide the shortage.
    site = start_site_behind(env={"WEB_CONCURRENCY": str(PROCESSES)})
    program = visitor_with_token(site)
    with postgres.restarted_with(max_connections="12", superuser_reserved_connections="0"):
        others = _take_every_slot(postgres, database_url)
        with Crowd(program, people=8) as readers:
            full_at = time.monotonic()
            readers.first(503, since=full_at)
            time.sleep(4)
            freed_at = time.monotonic()
            for other in others[:6]:
                other.close()
            assert readers.first(200, since=freed_at) < 1.3
            time.sleep(1.5)
            well_at = time.monotonic()
            time.sleep(0.5)
        for other in others[6:]:
            other.close()
    told = readers.told(since=full_at, until=freed_at - 2.5)
    assert {answer.status for answer in told} == {503}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in told)
    assert set(readers.statuses(since=well_at)) == {200}
    # At the very beginning each process finds out with what it asked for; after that each probes once or twice.
    assert proxy.most_opened_within(1, since=full_at) <= PROCESSES * 8
    settled = [at for at in proxy.opened_at if full_at + 1.5 <= at < freed_at]
    assert len(settled) / (freed_at - full_at - 1.5) <= PROCESSES * 2.5


def _take_every_slot(postgres: ThrowawayPostgres, url: str) -> list[psycopg.Connection]:
    taken: list[psycopg.Connection] = []

    def take_slots() -> None:
        while True:
            taken.append(psycopg.connect(url))

    with pytest.raises(psycopg.OperationalError, match="too many clients"):
        take_slots()
    return taken
