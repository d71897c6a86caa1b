"""The debug toolbar beside the backend: it rebuilds every cursor, and both of them still see the queries."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import requests

from tests.support.site import Site

pytestmark = pytest.mark.slow

WORKERS = pytest.mark.parametrize("worker_class", ["gthread", "asgi"])


class Developer:
    """Somebody who is logged in, with the toolbar open."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.session = requests.Session()
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', self.read("/admin/login/"))
        assert token
        form = {"csrfmiddlewaretoken": token[1], "username": "demo", "password": "demo"}
        self.session.post(f"{site.url}/admin/login/?next=/admin/", data=form, timeout=20).raise_for_status()

    def read(self, path: str, **params: str) -> str:
        response = self.session.get(self.site.url + path, params=params, timeout=20)
        response.raise_for_status()
        return response.text

    def panel(self, request_id: str, panel_id: str) -> str:
        """What the toolbar shows when somebody opens a panel."""
        response = self.session.get(
            f"{self.site.url}/__debug__/render_panel/",
            params={"request_id": request_id, "panel_id": panel_id},
            timeout=20,
        )
        return re.sub(r"<[^>]+>", "", response.json()["content"])


@pytest.fixture
def develop(start_site: Callable[..., Site], database_url: str) -> Callable[[str], Developer]:
    def develop(worker_class: str) -> Developer:
        url = f"{database_url}?slow_query_seconds=0"
        return Developer(
            start_site(url=url, worker_class=worker_class, DEBUG="1", DEBUG_TOOLBAR="1", ALLOWED_HOSTS="127.0.0.1")
        )

    return develop


def request_id_of(page: str) -> str:
    found = re.search(r'data-request-id="(\w+)"', page)
    assert found
    return found[1]


@WORKERS
def test_the_panels_and_the_slow_query_log_see_the_same_page(
    worker_class: str, develop: Callable[[str], Developer]
) -> None:
    """The panels list the statements of a page with their times; the log has them with their request."""
    developer = develop(worker_class)
    page = developer.read("/admin/")
    request_id = request_id_of(page)
    shown = developer.panel(request_id, "SQLPanel")
    assert "django_session" in shown
    assert re.search(r"\d+ quer(y|ies)", shown)
    ours = developer.panel(request_id, "ConnectionsPanel")
    assert "django_session" in ours
    assert "django/contrib/sessions/" in ours, "where a page has no line of the application, Django's tells most"
    assert re.search(r"[1-9]\d* leases, [1-9]\d* round trips, \d+ ms held", page)
    log = developer.site.log.splitlines()
    slow = [line for line in log if "dbresilience.slow_queries" in line]
    assert [line for line in slow if "django_session" in line and "GET /admin/" in line], log
    assert "Traceback" not in developer.site.log


@WORKERS
def test_a_response_that_is_no_page_can_be_looked_up(worker_class: str, develop: Callable[[str], Developer]) -> None:
    """As *History* does. The turn has a thread of its own, which outlives the request and belongs to none."""
    developer = develop(worker_class)
    who = {"username": "demo", "password": "demo"}
    token = requests.post(f"{developer.site.url}/api/auth/token", json=who, timeout=20).json()["token"]
    with requests.post(
        f"{developer.site.url}/api/chat",
        json={"message": "hello"},
        headers={"Accept": "text/event-stream", "Authorization": f"Token {token}"},
        stream=True,
        timeout=20,
    ) as response:
        request_id = response.headers["djdt-request-id"]
        assert "event: done" in response.text
    shown = developer.panel(request_id, "ConnectionsPanel")
    assert "INSERT INTO &quot;chat_thread&quot;" in shown
    assert re.search(r"chat/services.py:\d+ in start_turn", shown)
    assert "UPDATE &quot;chat_message&quot;" not in shown
    assert "Traceback" not in developer.site.log


def test_static_files_do_not_push_a_page_out_of_the_toolbar(develop: Callable[[str], Developer]) -> None:
    """It keeps the last 25 requests; a page of the admin has as many files."""
    developer = develop("gthread")
    request_id = request_id_of(developer.read("/admin/"))
    for _ in range(30):
        developer.read("/static/admin/css/base.css")
    assert "django_session" in developer.panel(request_id, "ConnectionsPanel")
