"""The list of conversations, with nothing but a keyboard; and the drawer of a narrow window."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Chat

pytestmark = pytest.mark.browser


def test_everything_can_be_done_with_the_keyboard(chat: Chat) -> None:
    """Ask, write two lines, stop, reach the list, rename, delete: no mouse."""
    keyboard = chat.page.keyboard
    expect(chat.field).to_be_focused()
    keyboard.type("What can")
    keyboard.press("Shift+Enter")
    keyboard.type("you do?")
    expect(chat.field).to_have_value("What can\nyou do?")
    keyboard.press("Enter")
    chat.begun()
    keyboard.press("Escape")
    expect(chat.replies.last).to_have_attribute("data-status", "interrupted")

    chat.threads.get_by_role("link").first.focus()
    keyboard.press("Tab")
    expect(chat.threads.get_by_role("button", name="Rename").first).to_be_focused()
    keyboard.press("Enter")
    name = chat.page.get_by_label("New name of the conversation")
    expect(name).to_be_focused()
    keyboard.press("ControlOrMeta+A")
    keyboard.type("A short tour")
    keyboard.press("Enter")
    expect(chat.page.get_by_role("heading", level=1)).to_have_text("A short tour")
    expect(chat.page.get_by_role("button", name="Rename “A short tour”")).to_be_focused()
    chat.page.reload()
    expect(chat.threads.get_by_role("link", name="A short tour")).to_be_visible()

    chat.threads.get_by_role("link").first.focus()
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.press("Enter")
    dialog = chat.page.get_by_role("dialog", name="Delete this conversation?")
    expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    expect(chat.page.get_by_role("button", name="Delete “A short tour”")).to_be_focused()
    keyboard.press("Enter")
    keyboard.press("Tab")
    keyboard.press("Enter")
    expect(chat.threads.get_by_role("link", name="A short tour")).to_have_count(0)
    expect(chat.page.get_by_role("heading", level=2)).to_be_visible()
    expect(chat.field).to_be_focused()


def test_what_is_typed_during_an_answer_stays_with_its_thread(chat: Chat) -> None:
    chat.ask("What can you do?")
    chat.page.keyboard.type("And then")
    chat.answered()
    expect(chat.field).to_have_value("And then")
    chat.page.get_by_role("link", name="New conversation").first.click()
    expect(chat.field).to_have_value("")
    chat.page.go_back()
    expect(chat.field).to_have_value("And then")


def test_a_suggestion_asks_and_another_begins_a_sentence(chat: Chat) -> None:
    chat.page.get_by_role("button", name="Search my messages for …").click()
    expect(chat.field).to_have_value("Search my messages for ")
    expect(chat.field).to_be_focused()
    chat.page.get_by_role("button", name="How is the database doing?").click()
    expect(chat.answered().locator("details[data-tool=database_status]")).to_have_attribute("data-status", "complete")


def test_in_a_narrow_window_the_list_is_a_drawer(narrow_chat: Chat) -> None:
    chat = narrow_chat
    page = chat.page
    chat.ask("What is 6*7?")
    chat.answered()
    expect(chat.threads).to_be_hidden()
    opener = page.get_by_role("button", name="Open the list of conversations")
    opener.click()
    expect(chat.threads).to_be_visible()
    expect(page.get_by_role("button", name="Close the list")).to_be_focused()
    page.keyboard.press("Escape")
    expect(chat.threads).to_be_hidden()
    expect(opener).to_be_focused()
    opener.click()
    page.get_by_role("link", name="New conversation").first.click()
    expect(chat.threads).to_be_hidden()
    expect(page.get_by_role("heading", level=2)).to_be_visible()
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow == 0
    bottom = chat.field.bounding_box()
    assert bottom is not None
    assert bottom["y"] + bottom["height"] <= 844


def test_an_address_of_no_thread_of_mine_says_so(chat: Chat) -> None:
    chat.page.goto(f"{chat.url}/?thread=0193c0de-0000-7000-8000-000000000000")
    expect(chat.page.get_by_role("alert")).to_have_text("This conversation does not exist any more.")
    expect(chat.page.get_by_role("heading", level=2)).to_be_visible()
