"""The chat as a person meets it: a page object, and a witness who notes what nobody should see."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, StorageState, expect

from tests.conftest import TEMPLATE
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site

THREAD = re.compile(r"thread=([0-9a-f-]{36})")
DATABASE = "site_of_browser"
# Chromium writes this line for every answer that is not 2xx; the tests of outages expect such answers.
ANSWER_WITH_AN_ERROR = "Failed to load resource"
# An answer takes two seconds; Playwright's five leave too little for a machine that does other things too.
expect.set_options(timeout=15_000)


class Chat:
    """What a person does on the page."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url

    def log_in(self, *, path: str = "/") -> None:
        self.page.goto(self.url + path)
        self.page.get_by_label("User name").fill("demo")
        self.page.get_by_label("Password").fill("demo")
        self.page.get_by_role("button", name="Log in").click()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        expect(self.page.locator("[data-threads] .skeleton")).to_have_count(0)

    def ask(self, text: str) -> None:
        self.field.fill(text)
        self.field.press("Enter")

    def begun(self) -> None:
        """Return with the first words of the newest reply: most of it is still to come."""
        # `expect` pauses up to a second between two looks, and by then half the answer may be there.
        newest = "[...document.querySelectorAll('article .prose')].at(-1)?.textContent"
        wait_until(lambda: self.page.evaluate(newest), what="the beginning of an answer")

    def answered(self, position: int = -1) -> Locator:
        """The reply at this position, once it is complete."""
        reply = self.replies.nth(position)
        expect(reply).to_have_attribute("data-status", "complete")
        return reply

    @property
    def field(self) -> Locator:
        return self.page.get_by_label("Message", exact=True)

    @property
    def questions(self) -> Locator:
        return self.page.get_by_role("article", name="You")

    @property
    def replies(self) -> Locator:
        return self.page.get_by_role("article", name="Assistant")

    @property
    def banner(self) -> Locator:
        return self.page.locator("[data-banner]")

    @property
    def threads(self) -> Locator:
        return self.page.get_by_role("navigation", name="Conversations")

    def stored(self) -> list[dict[str, Any]]:
        """The messages of the thread on screen, as the server has them."""
        found = THREAD.search(self.page.url)
        assert found, f"{self.page.url} names no thread"
        answer = self.page.request.get(f"{self.url}/api/threads/{found[1]}/messages")
        assert answer.ok, answer.status
        return list(answer.json()["results"])


class Witness:
    """Notes errors in the console, uncaught exceptions, and requests to any other host."""

    def __init__(self, page: Page, url: str) -> None:
        self._url = url
        self.seen: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.seen.append(f"uncaught: {error}"))
        page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(ANSWER_WITH_AN_ERROR):
            self.seen.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:", "blob:")):
            self.seen.append(f"another host: {request.url}")


@pytest.fixture(scope="session")
def site(_postgres_of_session: ThrowawayPostgres) -> Iterator[Site]:
    """One site for all these tests, with an agent slow enough that a test can act while it answers."""
    _postgres_of_session.copy_database(TEMPLATE, DATABASE)
    with Site(_postgres_of_session.url(DATABASE), CHAT_AGENT_DELAY_SECONDS="2", CHAT_RATE="10000/min") as site:
        yield site


@pytest.fixture(scope="module")
def logged_in(chromium_browser: Browser, site: Site) -> StorageState:
    """The cookies of somebody who logged in through the form."""
    context = chromium_browser.new_context()
    Chat(context.new_page(), site.url).log_in()
    state = context.storage_state()
    context.close()
    return state


@pytest.fixture
def open_chat(chromium_browser: Browser, site: Site, logged_in: StorageState) -> Iterator[Callable[..., Chat]]:
    """`open_chat(viewport=…, color_scheme=…)`: the page in a fresh profile, watched by a witness."""
    with ExitStack() as stack:
        witnesses = []

        def open_(**options: Any) -> Chat:
            context = chromium_browser.new_context(storage_state=logged_in, **options)
            stack.callback(context.close)
            context.set_default_timeout(10_000)
            page = context.new_page()
            witnesses.append(Witness(page, site.url))
            chat = Chat(page, site.url)
            page.goto(site.url)
            chat.wait_until_ready()
            return chat

        yield open_
        assert [line for witness in witnesses for line in witness.seen] == []


@pytest.fixture
def chat(open_chat: Callable[..., Chat]) -> Chat:
    return open_chat()


@pytest.fixture
def narrow_chat(open_chat: Callable[..., Chat]) -> Chat:
    """The same in a telephone's window."""
    return open_chat(viewport={"width": 390, "height": 844}, has_touch=True)
