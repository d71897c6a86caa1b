"""PostgreSQL stops; every page and route that needs it says 503 at once. It starts; all is well again.

The application is not restarted, nobody waits for a pool, nothing is a bare 500.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site

pytestmark = pytest.mark.slow


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: str
    seconds: float


class Visitor:
    """Somebody with a session or a token."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.headers: dict[str, str] = {}

    def ask(self, path: str, *, body: object = None, **headers: str) -> Answer:
        request = urllib.request.Request(
            self.site.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers=self.headers | headers | ({"Content-Type": "application/json"} if body is not None else {}),
        )
        opener = urllib.request.build_opener(_NoRedirect)
        started = time.monotonic()
        try:
            with opener.open(request, timeout=20) as response:
                status, sent, text = response.status, response.headers, response.read().decode()
        except urllib.error.HTTPError as error:
            status, sent, text = error.code, error.headers, error.read().decode()
        return Answer(status, {k.lower(): v for k, v in sent.items()}, text, time.monotonic() - started)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def visitor_with_session(site: Site) -> Visitor:
    visitor = Visitor(site)
    form = visitor.ask("/accounts/login/")
    token = form.headers["set-cookie"].split("csrftoken=")[1].split(";")[0]
    visitor.headers["Cookie"] = f"csrftoken={token}"
    request = urllib.request.Request(
        site.url + "/accounts/login/",
        data=f"username=demo&password=demo&csrfmiddlewaretoken={token}".encode(),
        headers=visitor.headers | {"Referer": site.url},
    )
    try:
        urllib.request.build_opener(_NoRedirect).open(request, timeout=20)
    except urllib.error.HTTPError as redirect:
        cookies = redirect.headers.get_all("Set-Cookie") or []
        visitor.headers["Cookie"] = "; ".join(cookie.split(";")[0] for cookie in cookies)
    return visitor


def visitor_with_token(site: Site) -> Visitor:
    visitor = Visitor(site)
    answer = visitor.ask("/api/auth/token", body={"username": "demo", "password": "demo"})
    visitor.headers["Authorization"] = f"Token {json.loads(answer.body)['token']}"
    return visitor


PAGES = ["/", "/admin/", "/admin/chat/thread/", "/admin/chat/message/", "/admin/auth/user/"]
API = ["/api/threads", "/api/threads/0192f0c1-2b3c-7d4e-8f50-617283940a1b", "/api/health/db", "/readyz"]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


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
