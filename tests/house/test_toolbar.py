"""The debug toolbar beside the backend: it rebuilds every cursor, and both of them still see the queries."""

from __future__ import annotations

import http.cookiejar
import json
import re
import urllib.parse
import urllib.request
from collections.abc import Callable

import pytest

from tests.support.site import Site

pytestmark = pytest.mark.slow


def test_the_sql_panel_and_the_slow_query_log_see_the_same_page(
    start_site: Callable[..., Site], database_url: str
) -> None:
    """The panel lists the statements of a page with their times; the log has them with their request."""
    url = f"{database_url}?slow_query_seconds=0"
    site = start_site(url=url, DEBUG="1", DEBUG_TOOLBAR="1", ALLOWED_HOSTS="127.0.0.1")
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def read(path: str, **form: str) -> str:
        data = urllib.parse.urlencode(form).encode() if form else None
        with browser.open(site.url + path, data=data, timeout=20) as response:
            return str(response.read().decode())

    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', read("/admin/login/"))
    assert token
    page = read("/admin/login/?next=/admin/", csrfmiddlewaretoken=token[1], username="demo", password="demo")
    request_id = re.search(r'data-request-id="(\w+)"', page)
    assert request_id
    panel = json.loads(read(f"/__debug__/render_panel/?request_id={request_id[1]}&panel_id=SQLPanel"))["content"]
    shown = re.sub(r"<[^>]+>", "", panel)
    assert "django_session" in shown
    assert re.search(r"\d+ quer(y|ies)", shown)
    slow = [line for line in site.log.splitlines() if "dbresilience.slow_queries" in line]
    assert [line for line in slow if "django_session" in line and "GET /admin/" in line], site.log
