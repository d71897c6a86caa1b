"""Threads over HTTP: yours and nobody else's, page by page, in a fixed number of queries."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import pytest
from rest_framework.test import APIClient

from chat.models import Message, Thread, ToolCall

pytestmark = pytest.mark.django_db


def conversation(thread: Thread, author: Any, turns: int) -> None:
    for number in range(turns):
        question = Message.objects.create(thread=thread, role="user", content=f"Question {number}", author=author)
        reply = Message.objects.create(
            thread=thread, role="assistant", content=f"Answer {number}", in_reply_to=question
        )
        ToolCall.objects.bulk_create(
            ToolCall(reply=reply, position=position, name="calculate", status="complete") for position in range(2)
        )


def test_a_thread_is_made_renamed_and_deleted(api: APIClient) -> None:
    made = api.post("/api/threads", {"title": "Holidays"})
    assert made.status_code == 201
    address = f"/api/threads/{made.json()['id']}"
    assert api.get(address).json()["title"] == "Holidays"
    assert api.patch(address, {"title": "Work"}).json()["title"] == "Work"
    assert api.delete(address).status_code == 204
    assert api.get(address).status_code == 404


def test_a_thread_needs_no_title(api: APIClient) -> None:
    assert api.post("/api/threads").json()["title"] == "New chat"


def test_another_users_thread_does_not_exist(api: APIClient, bob: Any, api_of: Callable[[Any], APIClient]) -> None:
    """Each method of each address answers exactly as it does for a thread that there never was."""
    theirs = Thread.objects.create(owner=bob, title="Secret")
    for thread_id in (theirs.pk, uuid.uuid4()):
        address = f"/api/threads/{thread_id}"
        answers = [
            api.get(address),
            api.patch(address, {"title": "Mine"}),
            api.delete(address),
            api.get(f"{address}/messages"),
            api.post("/api/chat", {"message": "Hello", "thread": str(thread_id)}),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert all(answer["Content-Type"] == "application/problem+json" for answer in answers)
    assert Thread.objects.get().title == "Secret"
    assert api.get("/api/threads").json()["results"] == []


def test_threads_come_in_pages_newest_first(api: APIClient, alice: Any) -> None:
    made = [Thread.objects.create(owner=alice, title=str(number)) for number in range(7)]
    # Three of the same moment, so that the page's edge falls among equals.
    Thread.objects.filter(pk__in=[thread.pk for thread in made[2:5]]).update(updated_at=made[3].updated_at)
    seen: list[str] = []
    address: str | None = "/api/threads?page_size=3"
    while address:
        page = api.get(address).json()
        assert len(page["results"]) <= 3
        seen += [thread["title"] for thread in page["results"]]
        address = page["next"]
    assert seen == ["6", "5", "4", "3", "2", "1", "0"]


def test_messages_come_oldest_first_with_their_tool_calls(api: APIClient, alice: Any) -> None:
    thread = Thread.objects.create(owner=alice, title="Long")
    conversation(thread, alice, 3)
    first = api.get(f"/api/threads/{thread.pk}/messages?page_size=4").json()
    second = api.get(first["next"]).json()
    contents = [message["content"] for message in first["results"] + second["results"]]
    assert contents == ["Question 0", "Answer 0", "Question 1", "Answer 1", "Question 2", "Answer 2"]
    assert second["next"] is None
    assert [call["name"] for call in first["results"][1]["tool_calls"]] == ["calculate", "calculate"]
    assert first["results"][1]["in_reply_to"] == first["results"][0]["id"]


@pytest.mark.parametrize("turns", [1, 20])
def test_lists_take_as_many_queries_for_many_as_for_one(
    api: APIClient, alice: Any, turns: int, django_assert_max_num_queries: Any
) -> None:
    thread = Thread.objects.create(owner=alice, title="Long")
    conversation(thread, alice, turns)
    Thread.objects.bulk_create(Thread(owner=alice, title=str(number)) for number in range(turns))
    # Session and user; the thread; its messages; their tool calls.
    with django_assert_max_num_queries(5):
        api.get(f"/api/threads/{thread.pk}/messages")
    with django_assert_max_num_queries(3):
        api.get("/api/threads")


@pytest.mark.parametrize("position", ["rubbish", "2026-13-45 99:99", "\x00", "9" * 5000, "😀"])
@pytest.mark.parametrize("list_name", ["threads", "messages"])
def test_a_forged_cursor_is_a_404(api: APIClient, alice: Any, position: str, list_name: str) -> None:
    thread = Thread.objects.create(owner=alice, title="Long")
    cursor = base64.b64encode(urlencode({"p": position}).encode()).decode()
    address = "/api/threads" if list_name == "threads" else f"/api/threads/{thread.pk}/messages"
    answer = api.get(address, {"cursor": cursor})
    assert answer.status_code == 404
    assert "cursor" in answer.json()["detail"]


def test_deleting_a_thread_takes_everything_with_it(api: APIClient, alice: Any) -> None:
    thread = Thread.objects.create(owner=alice, title="Long")
    conversation(thread, alice, 3)
    assert api.delete(f"/api/threads/{thread.pk}").status_code == 204
    assert not Message.objects.exists()
    assert not ToolCall.objects.exists()
