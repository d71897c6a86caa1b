"""The dashboard as whoever is on call sees it: it notices an outage and its end, and can be read by everybody."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import Witness
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timed]

DASHBOARD = "/admin/dbresilience/dashboard/"
NOTICED_SECONDS = 3.0


def log_in(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/admin/login/?next={DASHBOARD}")
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()
    expect(headline(page)).to_have_attribute("data-level", "well")


def headline(page: Page) -> Any:
    return page.locator("[data-headline]")


def seconds_until(page: Page, level: str) -> float:
    """How long the headline takes to be of that level; looked at twenty times a second."""
    started = time.monotonic()
    page.wait_for_function(
        "level => level.includes(document.querySelector('[data-headline]').dataset.level)",
        arg=level.split(), polling=50, timeout=20_000,
    )  # fmt: skip
    return time.monotonic() - started


@pytest.fixture
def dashboard(page: Page, start_site: Callable[..., Site]) -> Page:
    """Of a site of its own, with two processes; nobody else asks it anything."""
    log_in(page, start_site(WEB_CONCURRENCY="2"))
    return page


def test_it_notices_an_outage_and_the_recovery_within_three_seconds(
    dashboard: Page, postgres: ThrowawayPostgres
) -> None:
    """Also a reload in between shows it, to somebody who is logged in; and nobody is logged out by it."""
    postgres.stop()
    noticed = seconds_until(dashboard, "critical")
    expect(headline(dashboard)).to_contain_text("The database ")
    dashboard.wait_for_timeout(1500)

    dashboard.reload()
    expect(dashboard.get_by_text("this page is all you can see of the administration")).to_be_visible()
    expect(headline(dashboard)).to_contain_text("The database has been away")
    expect(dashboard.get_by_text("The server does not answer at the moment")).to_be_visible()
    expect(dashboard.locator("[data-events]")).to_contain_text("The database is away")

    postgres.start()
    recovered = seconds_until(dashboard, "well warning")
    expect(dashboard.locator("[data-events]")).to_contain_text("The database is back")
    expect(dashboard.get_by_text("this page is all you can see")).to_be_hidden()
    print(f"the outage was noticed after {noticed:.1f} s, the recovery after {recovered:.1f} s")
    assert noticed < NOTICED_SECONDS
    assert recovered < NOTICED_SECONDS
    dashboard.goto(dashboard.url.replace("dbresilience/dashboard/", ""))
    expect(dashboard.get_by_text("Welcome, demo")).to_be_visible()


def test_a_stranger_sees_nothing_of_it_in_an_outage(
    chromium_browser: Browser, dashboard: Page, postgres: ThrowawayPostgres
) -> None:
    """With no cookie the way leads to the login, with one that nobody knows to the page of outages."""
    postgres.stop()
    context = chromium_browser.new_context()
    page = context.new_page()
    page.goto(dashboard.url)
    expect(page.get_by_label("Username")).to_be_visible()
    context.add_cookies([{"name": "sessionid", "value": "0" * 32, "url": dashboard.url}])
    answer = page.goto(dashboard.url)
    assert answer is not None
    assert answer.status == 503
    context.close()


def test_it_can_be_read_without_its_colours_and_charts(dashboard: Page, browser_context: BrowserContext) -> None:
    """Named regions, tables behind the charts, everything to be reached with the keyboard."""
    for name in (
        "Processes of this machine",
        "What happened",
        "Sessions on the server",
        "Slow queries of the last hour",
    ):
        expect(dashboard.get_by_role("heading", name=name)).to_be_visible()
    expect(dashboard.get_by_role("status")).to_contain_text("All is well: ")
    expect(dashboard.get_by_text("connections to this database as this user; the server has ")).to_be_visible()
    expect(dashboard.get_by_role("row", name="gunicorn").first).to_contain_text("closed")
    figures = dashboard.locator("figure", has_text="Query time").locator("summary")
    figures.focus()
    dashboard.keyboard.press("Enter")
    expect(dashboard.get_by_role("table", name="Query time, the newest first")).to_be_visible()
    expect(dashboard.get_by_role("row", name="ms").first).to_be_visible()
    dashboard.get_by_label("1 hour").focus()
    dashboard.keyboard.press("Space")
    expect(dashboard.get_by_label("1 hour")).to_be_checked()
    process = dashboard.get_by_role("combobox", name="Process")
    process.select_option(index=1)
    expect(process).not_to_have_value("")
    expect(headline(dashboard)).to_have_attribute("data-level", "well")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_it_fits_every_window_and_asks_nobody_else(
    chromium_browser: Browser, site: Site, postgres: ThrowawayPostgres, scheme: Any, width: int
) -> None:
    """No line is cut off, nothing is written into the console, and no other host is asked."""
    context = chromium_browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = context.new_page()
    witness = Witness(page, site.url)
    log_in(page, site)
    expect(page.locator("figure canvas")).to_have_count(5)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
    assert (sum(background) < 200) == (scheme == "dark")
    context.close()
    assert witness.seen == []
