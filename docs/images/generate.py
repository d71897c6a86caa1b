"""Takes the pictures of the dashboard: a site with two processes, people who ask, and a database that goes away.

Run it as `python -m docs.images.generate`; it takes two minutes.
"""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

from tests.conftest import DEMO_USER
from tests.support.chromium import chromium
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site, manage

HERE = Path(__file__).parent
DATABASE = "site"
DASHBOARD = "/admin/dbresilience/dashboard/"
BEFORE_SECONDS, AWAY_SECONDS, AFTER_SECONDS = 45, 12, 8
WIDE = {"width": 1440, "height": 1000}
NARROW = {"width": 390, "height": 844}


@contextmanager
def people(site: Site, count: int) -> Iterator[None]:
    """So many who look at their conversations, each ten times a second."""
    body = json.dumps({"username": "demo", "password": "demo"}).encode()
    request = urllib.request.Request(f"{site.url}/api/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        headers = {"Authorization": f"Token {json.load(answer)['token']}"}
    stop = threading.Event()

    def ask() -> None:
        while not stop.wait(0.1):
            try:
                urllib.request.urlopen(urllib.request.Request(f"{site.url}/api/threads", headers=headers)).close()
            except urllib.error.HTTPError as refused:
                refused.close()

    threads = [threading.Thread(target=ask) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def open_dashboard(browser: Browser, site: Site, viewport: dict[str, int], scheme: str) -> Page:
    """Log in to admin and open the page, in a window of that size."""
    page = browser.new_context(viewport=viewport, color_scheme=scheme).new_page()  # type: ignore[arg-type]
    page.goto(f"{site.url}/admin/login/?next={DASHBOARD}")
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()
    page.wait_for_selector("[data-headline][data-level=well], [data-headline][data-level=warning]")
    return page


def take(page: Page, name: str, *, whole: bool = False) -> None:
    """Write one picture."""
    page.screenshot(path=HERE / f"dashboard-{name}.png", full_page=whole)


def main() -> None:
    """Take them all."""
    with ThrowawayPostgres() as postgres, chromium() as browser:
        postgres.execute(f"CREATE DATABASE {DATABASE}")
        url = postgres.url(DATABASE)
        manage("migrate", "--verbosity=0", database_url=url)
        manage("shell", "-c", DEMO_USER, database_url=url)
        with (
            Site(f"{url}?pool_max_size=3&application_name=chat", WEB_CONCURRENCY="2", CHAT_RATE="100000/min") as site,
            people(site, 6),
        ):
            wide = open_dashboard(browser, site, WIDE, "light")
            dark = open_dashboard(browser, site, WIDE, "dark")
            narrow = open_dashboard(browser, site, NARROW, "dark")
            wide.wait_for_timeout(BEFORE_SECONDS * 1000)
            take(wide, "well")
            postgres.stop()
            wide.wait_for_timeout(AWAY_SECONDS * 1000)
            take(wide, "away")
            take(narrow, "away-narrow")
            postgres.start()
            wide.wait_for_timeout(AFTER_SECONDS * 1000)
            take(dark, "back", whole=True)


if __name__ == "__main__":
    main()
