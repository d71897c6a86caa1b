"""PostgreSQL stops and starts while somebody talks: nothing is lost, nothing is doubled."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import Chat
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timed]


def test_a_message_sent_into_an_outage_arrives_once_even_after_a_reload(
    chat: Chat, postgres: ThrowawayPostgres
) -> None:
    """Banner, countdown, reload onto the 503 page, which returns by itself; the message is answered once."""
    chat.ask("What is 2*(3+4)?")
    chat.answered()

    postgres.stop()
    chat.ask("What is 6*7?")
    expect(chat.banner).to_contain_text("The database is away for a moment")
    expect(chat.banner.get_by_role("button")).to_contain_text("Try now (")
    expect(chat.questions.last).to_contain_text("kept in this browser")

    chat.page.reload()
    expect(chat.page.get_by_role("heading", name="Back in a moment")).to_be_visible()
    postgres.start()
    expect(chat.questions).to_have_count(2, timeout=20_000)
    expect(chat.answered()).to_contain_text("42")
    expect(chat.questions).to_have_count(2)
    assert [message["content"] for message in chat.stored() if message["role"] == "user"] == [
        "What is 2*(3+4)?",
        "What is 6*7?",
    ]


def test_an_outage_while_the_assistant_answers_loses_no_word(chat: Chat, postgres: ThrowawayPostgres) -> None:
    chat.ask("What can you do?")
    chat.begun()
    postgres.stop()
    expect(chat.replies.last.locator(".prose")).to_contain_text("OPENAI_BASE_URL")
    assert chat.replies.last.get_attribute("data-status") == "streaming"
    postgres.start()
    expect(chat.replies.last).to_have_attribute("data-status", "complete", timeout=30_000)
    stored = chat.stored()
    assert [message["role"] for message in stored] == ["user", "assistant"]
    assert "OPENAI_BASE_URL" in stored[1]["content"]


def test_waiting_ends_at_once_with_try_now_and_stop_takes_the_message_back(chat: Chat) -> None:
    """Taken back and sent again unchanged, it is the same message to the server."""
    keys: list[str | None] = []
    away = {"type": "about:blank", "title": "Service Unavailable", "status": 503, "detail": "", "retry_after": 30}

    def refuse(route: Route) -> None:
        keys.append(route.request.headers.get("idempotency-key"))
        route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(away))

    chat.page.route("**/api/chat", refuse)
    chat.ask("What is 6*7?")
    expect(chat.banner.get_by_role("button")).to_contain_text("Try now (")
    chat.field.press("Escape")
    expect(chat.field).to_have_value("What is 6*7?")
    expect(chat.banner).to_be_hidden()

    chat.field.press("Enter")
    expect(chat.banner.get_by_role("button")).to_contain_text("Try now (")
    chat.page.unroute("**/api/chat")
    chat.banner.get_by_role("button").click()
    expect(chat.answered()).to_contain_text("42")
    expect(chat.banner).to_contain_text("All is well again")
    assert len(keys) == 2
    assert keys[0] == keys[1] is not None


def test_a_broken_connection_is_tried_again_with_the_same_key(chat: Chat) -> None:
    keys: list[str | None] = []

    def cut_once(route: Route) -> None:
        keys.append(route.request.headers.get("idempotency-key"))
        if len(keys) == 1:
            route.abort("connectionreset")
        else:
            route.continue_()

    chat.page.route("**/api/chat", cut_once)
    chat.ask("What is 6*7?")
    expect(chat.banner).to_contain_text("The server cannot be reached")
    expect(chat.answered()).to_contain_text("42")
    expect(chat.questions).to_have_count(1)
    assert keys[0] == keys[1] is not None


def test_a_message_that_may_have_been_stored_is_sent_again_and_there_once(chat: Chat) -> None:
    """It was stored, but its sender is told that nobody knows."""
    unknown = {"status": 503, "title": "Service Unavailable", "detail": "", "retry_after": 1, "outcome_unknown": True}

    def lose_the_answer(route: Route) -> None:
        route.fetch()
        route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(unknown))

    chat.page.route("**/api/chat", lose_the_answer, times=1)
    chat.ask("What is 6*7?")
    expect(chat.banner).to_contain_text("The database is away for a moment")
    expect(chat.answered()).to_contain_text("42")
    expect(chat.questions).to_have_count(1)
    assert [message["role"] for message in chat.stored()] == ["user", "assistant"]


def test_the_list_and_the_messages_come_back_after_an_outage(chat: Chat, postgres: ThrowawayPostgres) -> None:
    """A page that was open all the while loads what it could not, without a reload."""
    chat.ask("What is 6*7?")
    chat.answered()
    chat.page.get_by_role("link", name="New conversation").first.click()
    postgres.stop()
    chat.threads.get_by_role("link", name="6*7").first.click()
    expect(chat.banner).to_contain_text("The page goes on by itself")
    postgres.start()
    expect(chat.questions).to_have_text(["What is 6*7?"], timeout=20_000)


def test_a_form_sent_into_an_outage_is_not_sent_again_by_itself(
    page: Page, site: Site, postgres: ThrowawayPostgres
) -> None:
    page.goto(f"{site.url}/accounts/login/")
    postgres.stop()
    page.get_by_label("User name").fill("demo")
    page.get_by_label("Password").fill("demo")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", name="Back in a moment")).to_be_visible()
    expect(page.get_by_role("button", name="Send again")).to_be_visible()
    postgres.start()
    expect(page.get_by_text("Now is a good time")).to_be_visible(timeout=20_000)
    page.get_by_role("button", name="Back to the form").click()
    expect(page.get_by_label("User name")).to_be_visible()
