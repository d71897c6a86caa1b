"""The servers that other tests rely on do what they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.slow


def test_server_stops_and_starts_on_the_same_address(postgres: ThrowawayPostgres) -> None:
    """The data survive a stop and a kill."""
    postgres.execute("CREATE TABLE IF NOT EXISTS survivor ()")
    for end in (postgres.stop, postgres.kill):
        end()
        assert not postgres.is_running()
        with pytest.raises(psycopg.OperationalError):
            postgres.execute("SELECT 1")
        postgres.start()
        assert postgres.execute("SELECT count(*) FROM survivor") == [(0,)]


def test_frozen_server_accepts_but_never_answers(postgres: ThrowawayPostgres) -> None:
    """A frozen server is no refused connection: only the client's clock ends the wait."""
    postgres.freeze()
    with pytest.raises(psycopg.errors.ConnectionTimeout):
        psycopg.connect(postgres.url(), connect_timeout=2)
    postgres.thaw()
    assert postgres.execute("SELECT 1") == [(1,)]


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_site_starts_and_stops(start_site: Callable[..., Site], worker_class: str) -> None:
    """gunicorn ends with 0 on SIGTERM under either worker."""
    site = start_site(worker_class=worker_class)
    assert site.answers("/livez")
    assert site.stop() == 0
    assert "Traceback" not in site.log


@pytest.mark.browser
def test_chromium_opens_the_login_page(start_site: Callable[..., Site], page: Page) -> None:
    """The browser reaches the site, and its page has the fields of a login."""
    site = start_site()
    page.goto(f"{site.url}/accounts/login/")
    assert page.locator("input[name=username]").is_visible()
