"""PostgreSQL crashes while people read and write: they are told 503 for a moment, and nothing is lost or doubled."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site
from tests.support.visitor import Crowd, Writers, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]


def test_one_backend_crashes_and_the_server_recovers(
    start_site: Callable[..., Site], postgres: ThrowawayPostgres
) -> None:
    """It ends everybody's session, and lets nobody in until it has recovered."""
    program = visitor_with_token(start_site(CHAT_RATE="100000/min"))
    with Writers(program) as writers, Crowd(program) as readers:
        writers.first(200, since=time.monotonic())
        time.sleep(0.5)
        postgres.crash()
        accepted_at = postgres.accepts_at()
        assert readers.first(200, since=accepted_at) < 0.2
        writers.first(200, since=accepted_at)
        time.sleep(0.5)
    assert set(readers.statuses()) | set(writers.statuses()) <= {200, 503}
    # Whoever asked while it recovered has waited for it. But a session that was just being opened may end with
    # the others, and then people are refused until the next probe.
    refused = [answer for answer in readers.answers if answer.status == 503]
    assert len(refused) <= 16
    assert all(answer.at < accepted_at + 0.2 for answer in refused)
    writers.check_that_all_is_stored_once()


def test_the_whole_server_is_killed_and_started_later(
    start_site: Callable[..., Site], postgres: ThrowawayPostgres
) -> None:
    """For two seconds nobody listens at its address."""
    program = visitor_with_token(start_site(CHAT_RATE="100000/min"))
    with Writers(program) as writers, Crowd(program) as readers:
        writers.first(200, since=time.monotonic())
        postgres.kill()
        readers.first(503, since=time.monotonic())
        time.sleep(2)
        accepted_at = postgres.start_and_note()
        assert readers.first(200, since=accepted_at) < 0.2
        all_well_since = time.monotonic()
        writers.first(200, since=all_well_since)
        time.sleep(0.5)
    assert set(readers.statuses()) | set(writers.statuses()) <= {200, 503}
    assert set(readers.statuses(since=all_well_since)) == {200}
    writers.check_that_all_is_stored_once()
