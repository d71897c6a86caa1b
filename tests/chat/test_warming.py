"""warming.py: what a process asks before anybody asks it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from chat.warming import ask_as_a_request_would
from tests.support.postgres import wait_until
from tests.support.site import Site


@pytest.mark.parametrize("hosts", [["chat.example.com"], [".example.com"], ["*"]])
def test_it_goes_the_way_of_a_request_and_changes_nothing(db: None, settings: Any, hosts: list[str]) -> None:
    settings.ALLOWED_HOSTS = hosts
    with CaptureQueriesContext(connection) as queries:
        ask_as_a_request_would()
    assert any("chat_thread" in query["sql"] for query in queries)
    assert any("authtoken_token" in query["sql"] for query in queries)
    assert all(query["sql"].startswith("SELECT") for query in queries)


@pytest.mark.slow
def test_the_site_has_asked_before_anybody_has(start_site: Callable[..., Site]) -> None:
    site = start_site()
    wait_until(lambda: "warm-up done" in site.log)
    assert "Unauthorized" not in site.log
    assert "Bad Request" not in site.log
