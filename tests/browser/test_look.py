"""What can be checked of the look without eyes: contrast, names of controls, focus, motion, and the other pages."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import Chat
from tests.support.site import Site

pytestmark = pytest.mark.browser

# Text on ground, as theme.css pairs them.
PAIRS = [
    *[(ink, ground) for ink in ("ink", "ink-soft", "ink-faint") for ground in ("paper", "surface", "raised", "hover")],
    ("brand", "surface"),
    ("brand", "raised"),
    ("brand-strong", "brand-wash"),
    ("ink", "brand-wash"),
    ("on-brand", "brand"),
    ("on-brand", "brand-strong"),
    ("ink", "warn-wash"),
    ("danger", "danger-wash"),
    ("danger", "raised"),
    ("ink-faint", "code"),
]
# Edges of controls and the ring of the focus need less.
EDGES = [("line-strong", "raised"), ("line-strong", "surface"), ("brand", "surface"), ("brand", "paper")]
NAMELESS = """
() => [...document.querySelectorAll("button, a[href], input:not([type=hidden]), textarea, summary")]
  .filter((each) => each.checkVisibility())
  .filter((each) => !(each.getAttribute("aria-label") || each.textContent.trim() || each.labels?.length))
  .map((each) => each.outerHTML)
"""


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in channels]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_pair_of_colours_is_readable(open_chat: Callable[..., Chat], scheme: str) -> None:
    """WCAG AA: 4.5 for text, 3 for edges, in both schemes."""
    page = open_chat(color_scheme=scheme).page

    def token(name: str) -> str:
        value = page.evaluate(f"getComputedStyle(document.documentElement).getPropertyValue('--{name}').trim()")
        assert re.fullmatch("#[0-9a-f]{6}", value), (name, value)
        return str(value)

    weak = [(*pair, 4.5) for pair in PAIRS if contrast(*map(token, pair)) < 4.5]
    weak += [(*pair, 3.0) for pair in EDGES if contrast(*map(token, pair)) < 3]
    assert weak == []


def test_the_page_has_landmarks_one_title_and_no_nameless_control(chat: Chat) -> None:
    chat.ask("What is 2*(3+4)?")
    chat.answered().locator("summary").click()
    page = chat.page
    for role in ("main", "navigation", "complementary"):
        expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    expect(page.get_by_role("heading", level=1)).to_have_count(1)
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.evaluate(NAMELESS) == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((each) => each.id)")
    assert len(ids) == len(set(ids))
    live = page.locator("[aria-live=polite]")
    expect(live).to_have_count(1)
    expect(chat.replies.last).to_have_attribute("aria-busy", "false")


def test_the_focus_can_be_seen_and_motion_can_be_switched_off(open_chat: Callable[..., Chat]) -> None:
    chat = open_chat(reduced_motion="reduce")
    page = chat.page
    page.keyboard.press("Shift+Tab")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert ring == "solid"
    chat.ask("What can you do?")
    expect(chat.page.locator(".thread-live")).to_be_visible()
    repeats = page.evaluate("getComputedStyle(document.querySelector('.thread-live')).animationIterationCount")
    assert repeats == "1"
    chat.answered()


def test_the_page_allows_nothing_inline_and_is_never_cached(chat: Chat) -> None:
    headers = chat.page.request.get(chat.url).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "no-store" in headers["cache-control"]


def test_a_wrong_password_is_told_and_announced(page: Page, site: Site) -> None:
    page.goto(f"{site.url}/accounts/login/")
    expect(page.get_by_label("User name")).to_be_focused()
    page.keyboard.type("demo")
    page.keyboard.press("Tab")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("correct username and password")
    expect(page.get_by_label("User name")).to_have_value("demo")
    expect(page.get_by_label("Password")).to_be_focused()
    assert page.evaluate(NAMELESS) == []


def test_who_logs_out_is_asked_to_log_in_again(page: Page, site: Site) -> None:
    """Through the form, in a session of its own: logging out ends the session everywhere."""
    chat = Chat(page, site.url)
    chat.log_in()
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Log in")).to_be_visible()


def test_pages_beside_the_chat_speak_the_same_language(chat: Chat) -> None:
    page = chat.page
    page.goto(f"{chat.url}/nowhere")
    expect(page.get_by_role("heading", name="There is nothing at this address")).to_be_visible()
    page.get_by_role("link", name="Go to the chat").click()
    expect(chat.field).to_be_visible()
    page.get_by_role("link", name="Administration").click()
    expect(page.get_by_role("link", name="dbresilience chat")).to_be_visible()
    header = page.evaluate("getComputedStyle(document.querySelector('#header')).backgroundColor")
    assert header == "rgb(20, 48, 43)"
