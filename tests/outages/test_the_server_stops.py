"""PostgreSQL stops; every page and route that needs it says 503 at once. It starts; all is well again.

The application is not restarted, nobody waits for a pool, nothing is a bare 500.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site
from tests.support.visitor import HTML, Visitor, visitor_with_session, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]


PAGES = ["/", "/admin/", "/admin/chat/thread/", "/admin/chat/message/", "/admin/auth/user/"]
API = ["/api/threads", "/api/threads/0192f0c1-2b3c-7d4e-8f50-617283940a1b", "/api/health/db", "/readyz"]


@pytest.mark.parametrize("debug", ["0", "1"], ids=["production", "DEBUG"])
@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_every_route_says_so_and_comes_back(
    start_site: Callable[..., Site], postgres: ThrowawayPostgres, worker_class: str, debug: str
) -> None:
    """503 + Retry-After everywhere, quickly; 200 again without a restart of the application."""
    site = start_site(worker_class=worker_class, DEBUG=debug)
    person, program = visitor_with_session(site), visitor_with_token(site)
    for path in PAGES:
        assert person.ask(path, **HTML).status == 200, path

    postgres.stop("immediate")
    for path in PAGES:
        answer = person.ask(path, **HTML)
        assert answer.status == 503, (path, answer.body[:500])
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.headers["content-type"].startswith("text/html")
        assert answer.seconds < 3, path
    for path in API:
        answer = program.ask(path)
        assert answer.status == 503, (path, answer.body[:500])
        assert int(answer.headers["retry-after"]) >= 1
        assert answer.seconds < 3, path
    for path, body in [
        ("/api/chat", {"message": "hello"}),
        ("/api/auth/token", {"username": "demo", "password": "demo"}),
        ("/api/threads", {"title": "x"}),
    ]:
        answer = program.ask(path, body=body)
        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), path
    assert program.ask("/api/chat", body={"message": "x"}, Accept="text/event-stream").status == 503
    assert Visitor(site).ask("/livez").status == 200

    postgres.start()
    wait_until(lambda: program.ask("/api/threads").status == 200, timeout_seconds=2, what="a 200")
    for path in PAGES:
        assert person.ask(path, **HTML).status == 200, path
    wait_until(lambda: program.ask("/readyz").status == 200, timeout_seconds=3, what="readiness")
    assert program.ask("/api/chat", body={"message": "what is 2*(3+4)"}).status == 200
    assert not [line for line in site.log.splitlines() if "connection to server" in line and "127.0.0.1" in line]


@pytest.mark.parametrize("mode", ["fast", "kill"])
def test_a_restart_between_two_requests_is_not_noticed(
    start_site: Callable[..., Site], postgres: ThrowawayPostgres, mode: str
) -> None:
    """The pool's dead connections never reach a request."""
    site = start_site()
    program = visitor_with_token(site)
    assert program.ask("/api/threads").status == 200
    postgres.kill() if mode == "kill" else postgres.stop("fast")
    postgres.start()
    assert [program.ask("/api/threads").status for _ in range(20)] == [200] * 20
