"""The database was away while nobody asked: the first request in the morning is served, not refused."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.visitor import visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]

NIGHT_SECONDS = 11.0
# An idle process looks by itself now and then; who asks sooner after a look is told what it found.
LOOK_IS_NEWS_SECONDS = 0.15


def test_an_outage_that_nobody_saw(start_site: Callable[..., Site], postgres: ThrowawayPostgres) -> None:
    """It began and ended between two requests."""
    program = visitor_with_token(start_site())
    postgres.stop("immediate")
    time.sleep(1)
    postgres.start()
    assert program.ask("/api/threads").status == 200


def test_an_outage_that_was_seen_in_the_evening(start_site_behind: Callable[..., Site], proxy: Proxy) -> None:
    """The last visitor was refused; the server came back in the night, and is slow to answer in the morning."""
    program = visitor_with_token(start_site_behind())
    proxy.refuse()
    proxy.cut()
    assert program.ask("/api/threads").status == 503
    time.sleep(NIGHT_SECONDS)
    proxy.restore()
    proxy.delay(0.05)
    time.sleep(LOOK_IS_NEWS_SECONDS)
    assert program.ask("/api/threads").status == 200
