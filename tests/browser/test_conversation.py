"""Asking, seeing the answer grow, stopping it, trying again: on a healthy site."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Chat

pytestmark = pytest.mark.browser


def test_an_answer_arrives_word_by_word_with_its_tool_call_and_survives_a_reload(chat: Chat) -> None:
    """Tool call first, then words while the agent still works, then the same page again from the database."""
    chat.ask("Search my messages for search")
    reply = chat.replies.last
    tool = reply.locator("details[data-tool=search_my_messages]")
    expect(tool).to_have_attribute("data-status", "complete")
    expect(reply.locator(".prose")).not_to_be_empty()
    first_words = reply.locator(".prose").inner_text()
    assert reply.get_attribute("data-status") == "streaming"
    expect(chat.page.get_by_role("button", name="Stop the answer")).to_be_visible()

    whole = chat.answered().locator(".prose").inner_text()
    assert len(whole) > len(first_words)
    tool.locator("summary").click()
    expect(tool.get_by_role("region", name="Asked with")).to_contain_text('"query": "search"')
    expect(chat.page.get_by_role("status")).to_contain_text("The assistant answered")

    chat.page.reload()
    assert chat.answered().locator(".prose").inner_text() == whole
    expect(chat.questions).to_have_count(1)
    expect(chat.replies.last.locator("details")).to_have_count(1)


def test_stop_keeps_the_words_so_far_and_try_again_finishes_in_place(chat: Chat) -> None:
    chat.ask("What can you do?")
    chat.begun()
    chat.page.get_by_role("button", name="Stop the answer").click()
    expect(chat.replies.last).to_have_attribute("data-status", "interrupted")
    expect(chat.replies.last.locator(".prose")).not_to_be_empty()
    expect(chat.field).to_be_focused()

    chat.replies.last.get_by_role("button", name="Try again").click()
    expect(chat.answered()).to_contain_text("Calculate")
    assert [message["status"] for message in chat.stored()] == ["complete", "complete"]


def test_a_reload_in_mid_answer_doubles_nothing_and_offers_to_try_again(chat: Chat) -> None:
    chat.ask("What can you do?")
    chat.begun()
    chat.page.reload()
    expect(chat.replies.last).to_have_attribute("data-status", "interrupted")
    expect(chat.questions).to_have_count(1)
    expect(chat.replies).to_have_count(1)
    chat.replies.last.get_by_role("button", name="Try again").click()
    chat.answered()
    assert [message["role"] for message in chat.stored()] == ["user", "assistant"]


def test_another_thread_can_be_used_while_one_answers(chat: Chat) -> None:
    """The first answer goes on in the background and is there on the way back."""
    chat.ask("What can you do?")
    chat.begun()
    chat.page.get_by_role("link", name="New conversation").first.click()
    chat.ask("What is 6*7?")
    expect(chat.answered()).to_contain_text("42")
    chat.threads.get_by_role("link", name="What can you do").first.click()
    expect(chat.answered()).to_contain_text("Calculate")
    expect(chat.questions).to_have_count(1)
    chat.page.go_back()
    expect(chat.questions).to_have_text(["What is 6*7?"])


def test_what_an_answer_says_is_shown_and_never_run(chat: Chat) -> None:
    """Scripts, handlers, pictures of other hosts and dangerous links are gone; code can be copied."""
    evil = (
        "<img src=x onerror=alert(1)> <script>alert(1)</script> <b style='color:red' onclick=alert(1)>x</b>\n\n"
        "[bad](javascript:alert(1)) [good](https://example.com) ![spy](https://spy.example/pixel.png)\n\n"
        "```python\nprint('hello')\n```"
    )

    def answer(route: Route) -> None:
        ids = {"id": "0193c0de-0000-7000-8000-000000000001", "title": "Evil"}
        turn = {"thread": ids, "message": {"id": "m", "role": "user", "content": "x"}, "reply": {"id": "r"}}
        done = {**turn, "reply": {"id": "r", "content": evil, "status": "complete", "tool_calls": []}}
        body = f"event: turn\ndata: {json.dumps(turn)}\n\nevent: done\ndata: {json.dumps(done)}\n\n"
        route.fulfill(status=200, content_type="text/event-stream", body=body)

    chat.page.on("dialog", lambda dialog: pytest.fail("A script of the answer ran"))
    chat.page.route("**/api/chat", answer)
    chat.ask("Do your worst")
    prose = chat.answered().locator(".prose")
    expect(prose.locator("script, img, [onclick], [onerror], [style], [href^=javascript]")).to_have_count(0)
    expect(prose).to_contain_text("<script>alert(1)</script>")
    expect(prose.get_by_role("link", name="good")).to_have_attribute("rel", "noopener noreferrer nofollow")
    expect(prose.get_by_role("link", name="spy")).to_be_visible()
    prose.get_by_role("button", name="Copy the python code").click()
    expect(prose.get_by_text("Copied")).to_be_visible()


def test_a_message_outlives_the_session_it_was_written_in(chat: Chat) -> None:
    """Logged out in between: the page asks for the password, then sends what was written, once."""
    chat.page.context.clear_cookies(name="sessionid")
    chat.ask("What is 6*7?")
    expect(chat.page.get_by_role("heading", name="Log in")).to_be_visible()
    chat.page.get_by_label("User name").fill("demo")
    chat.page.get_by_label("Password").fill("demo")
    chat.page.get_by_role("button", name="Log in").click()
    expect(chat.answered()).to_contain_text("42")
    expect(chat.questions).to_have_text(["What is 6*7?"])


def test_two_tabs_send_one_message_once(chat: Chat) -> None:
    """The second tab finds the waiting message too, and is done with it when the first one has the answer."""
    chat.page.route("**/api/chat", lambda route: route.abort("connectionreset"))
    chat.ask("What is 6*7?")
    expect(chat.banner).to_be_visible()
    second = Chat(chat.page.context.new_page(), chat.url)
    second.page.goto(chat.url)
    expect(second.questions).to_contain_text("What is 6*7?")
    chat.page.unroute("**/api/chat")
    chat.answered()
    expect(second.page.get_by_role("button", name="Send the message")).to_be_visible()
    expect(second.threads.locator("[data-thread]").first).to_contain_text("6*7")
    assert [message["role"] for message in chat.stored()] == ["user", "assistant"]


def test_what_the_server_refuses_goes_back_into_the_field(chat: Chat) -> None:
    """Nothing is sent again that can never succeed; the text is not lost either."""
    problem = {"status": 400, "title": "Bad Request", "detail": "message: say it differently."}
    chat.page.route(
        "**/api/chat",
        lambda route: route.fulfill(status=400, content_type="application/problem+json", body=json.dumps(problem)),
    )
    chat.ask("Something impossible")
    expect(chat.page.get_by_role("alert")).to_have_text("message: say it differently.")
    expect(chat.field).to_have_value("Something impossible")
    expect(chat.questions).to_have_count(0)


def test_a_message_that_is_too_long_is_not_sent(chat: Chat) -> None:
    chat.field.fill("a" * 8001)
    expect(chat.page.get_by_text("8,001 of 8,000 characters")).to_be_visible()
    expect(chat.page.get_by_role("button", name="Send the message")).to_be_disabled()
