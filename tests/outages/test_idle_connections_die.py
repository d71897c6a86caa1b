"""Every idle connection is ended behind the pool's back, as a firewall or an administrator does: nobody notices."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import Proxy
from tests.support.site import Site
from tests.support.visitor import visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]


@pytest.mark.parametrize("end", ["terminated", "cut", "reset"])
def test_the_next_twenty_requests_succeed(
    start_site_behind: Callable[..., Site], proxy: Proxy, postgres: ThrowawayPostgres, database_url: str, end: str
) -> None:
    """All five of a pool of five, by the server and by the network; each answer takes no longer than usual."""
    program = visitor_with_token(start_site_behind(pool_min_size=5, pool_max_size=5))
    wait_until(lambda: proxy.open == 5, what="a pool of five")
    if end == "terminated":
        postgres.terminate_backends(database_url.rpartition("/")[2])
    elif end == "cut":
        proxy.cut()
    else:
        proxy.reset()
        proxy.restore()
    wait_until(lambda: proxy.open == 0, what="the end of all five")
    with ThreadPoolExecutor(5) as people:
        answers = list(people.map(program.ask, ["/api/threads"] * 20))
    assert [answer.status for answer in answers] == [200] * 20
    assert max(answer.seconds for answer in answers) < 1
