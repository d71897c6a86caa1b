"""The primary crashes and its standby is promoted: the same processes serve on, with all that was acknowledged."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import DEMO_USER
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site, manage
from tests.support.standby import Standby
from tests.support.visitor import Crowd, Writers, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]


@pytest.fixture
def primary() -> Iterator[ThrowawayPostgres]:
    with ThrowawayPostgres() as server:
        manage("migrate", "--verbosity=0", database_url=server.url())
        manage("shell", "-c", DEMO_USER, database_url=server.url())
        yield server


def url_of(*servers: ThrowawayPostgres) -> str:
    """As an operator writes it: several hosts, one of which takes writes."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://postgres@{hosts}/postgres?target_session_attrs=read-write&connect_timeout=2"


@pytest.mark.parametrize("away_seconds", [0.5, 6])
def test_writes_are_accepted_within_a_second(
    primary: ThrowawayPostgres, start_site: Callable[..., Site], away_seconds: float
) -> None:
    """However long it took until somebody promoted it; before that 503, and never anything else."""
    with Standby(primary) as standby:
        # A crash must not lose what was acknowledged, so a commit waits for the standby.
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        primary.execute("SELECT pg_reload_conf()")
        site = start_site(url=url_of(primary, standby), WEB_CONCURRENCY="2")
        program = visitor_with_token(site)
        with Crowd(program, people=3) as readers, Writers(program, people=3) as writers:
            writers.first(200, since=time.monotonic())
            time.sleep(0.5)
            primary.kill()
            time.sleep(away_seconds)
            standby.promote()
            promoted_at = time.monotonic()
            took = writers.first(200, since=promoted_at)
            time.sleep(2.5)
        late = writers.told(since=promoted_at + 1)
        slow = sorted(round(a.seconds, 2) for a in [*readers.answers, *writers.answers])[-5:]
        print("slowest", slow)
        print(f"after {away_seconds} s away: a write {took:.2f} s after promotion; {readers.statuses()}")
        assert took <= 1
        assert {answer.status for answer in late} == {200}
        assert set(readers.statuses() | writers.statuses()) <= {200, 503}
        writers.check_that_all_is_stored_once()
