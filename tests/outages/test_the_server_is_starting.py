"""PostgreSQL is there, and recovers: "the database system is starting up". Whoever asks waits for it, and is served."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.visitor import Crowd, percentile_seconds, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]


def test_a_server_in_recovery_is_waited_for(start_site: Callable[..., Site], postgres: ThrowawayPostgres) -> None:
    """57P03 from the server itself, for two seconds; nobody is refused."""
    program = visitor_with_token(start_site())
    assert program.ask("/api/threads").status == 200
    postgres.stop()
    postgres.start_recovering()
    with Crowd(program) as readers:
        time.sleep(2)
        assert readers.answers == []
        postgres.end_recovery()
        accepted_at = postgres.accepts_at()
        assert readers.first(200, since=accepted_at) < 0.3
    assert set(readers.statuses()) == {200}


def test_nobody_waits_longer_than_the_deadline(start_site_behind: Callable[..., Site], proxy: Proxy) -> None:
    """Then 503, with a Retry-After of a second; and few attempts are made meanwhile."""
    program = visitor_with_token(start_site_behind(deadline_seconds=1))
    assert program.ask("/api/threads").status == 200
    proxy.deny("57P03", "the database system is starting up")
    proxy.cut()
    starting_at = time.monotonic()
    with Crowd(program, people=6) as readers:
        time.sleep(3)
        well_at = time.monotonic()
        proxy.restore()
        assert readers.first(200, since=well_at) < 0.4
    refused = [answer for answer in readers.answers if answer.status == 503]
    assert refused
    assert percentile_seconds(readers.answers) <= 1.2
    # Who was let in with its last moments may have had no time to connect or to be answered: other refusals.
    told = [answer for answer in readers.answers if answer.at <= well_at]
    assert {(answer.status, answer.headers["retry-after"]) for answer in told} == {(503, "1")}
    assert set(readers.statuses()) <= {200, 503, 504}
    assert proxy.most_opened_within(1, since=starting_at + 0.5) <= 12
