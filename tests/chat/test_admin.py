"""The admin's pages of the chat: found quickly, read only, in as many queries for many rows as for one."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from chat.admin import EstimatingPaginator
from chat.models import Message, Thread, ToolCall

pytestmark = pytest.mark.django_db

PAGES = ["thread", "message", "toolcall"]


@pytest.fixture
def admin(client: Client, db: None) -> Client:
    client.force_login(User.objects.create_superuser("root", password="root"))
    return client


def conversations(count: int) -> Thread:
    for number in range(count):
        owner = User.objects.create_user(f"user{number}")
        thread = Thread.objects.create(owner=owner, title=f"Thread {number}")
        question = Message.objects.create(thread=thread, role="user", content=f"Question {number}", author=owner)
        reply = Message.objects.create(
            thread=thread, role="assistant", content="Invoices are blue", in_reply_to=question
        )
        ToolCall.objects.create(reply=reply, position=0, name="calculate", status="complete")
    return thread


@pytest.mark.parametrize("count", [1, 30])
@pytest.mark.parametrize("page", PAGES)
def test_a_list_takes_the_same_queries_for_many(
    admin: Client, page: str, count: int, django_assert_max_num_queries: Any
) -> None:
    """Session, user, estimate, count and rows; the filter's choices of tool calls are one more."""
    conversations(count)
    with django_assert_max_num_queries(7):
        answer = admin.get(f"/admin/chat/{page}/")
    assert answer.status_code == 200
    assert f"user{count - 1}" in answer.content.decode()


def test_a_thread_shows_its_messages_in_few_queries(admin: Client, django_assert_max_num_queries: Any) -> None:
    thread = conversations(1)
    for number in range(30):
        Message.objects.create(thread=thread, role="user", content=f"More {number}", author=thread.owner)
    with django_assert_max_num_queries(9):
        answer = admin.get(f"/admin/chat/thread/{thread.pk}/change/")
    assert b"More 29" in answer.content


@pytest.mark.parametrize("page", PAGES)
def test_every_page_can_be_read_and_none_written(admin: Client, page: str) -> None:
    conversations(1)
    model = {"thread": Thread, "message": Message, "toolcall": ToolCall}[page]
    row = model.objects.order_by("-pk").first()
    address = f"/admin/chat/{page}/{row.pk}/change/"
    shown = admin.get(address)
    assert shown.status_code == 200
    assert b'name="_save"' not in shown.content
    assert admin.post(address, {"title": "x"}).status_code == 403
    assert admin.get(f"/admin/chat/{page}/add/").status_code == 403


def test_a_thread_can_be_deleted_with_its_parts_and_no_part_alone(admin: Client) -> None:
    thread = conversations(1)
    message = thread.messages.first()
    assert admin.post(f"/admin/chat/message/{message.pk}/delete/", {"post": "yes"}).status_code == 403
    assert admin.post(f"/admin/chat/thread/{thread.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Message.objects.exists()


def test_a_user_can_be_deleted_with_their_threads(admin: Client) -> None:
    owner = conversations(1).owner
    assert admin.post(f"/admin/auth/user/{owner.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Thread.objects.exists()


@pytest.mark.parametrize(
    ("page", "words", "found"),
    [
        ("thread", "Thread 1", 1),
        ("thread", "user2", 1),
        ("message", "invoice", 3),
        ("message", '"blue invoices"', 0),
        ("message", "' & ! (", 0),
        ("toolcall", "calculate", 3),
        ("toolcall", "user1", 1),
    ],
)
def test_searches(admin: Client, page: str, words: str, found: int) -> None:
    conversations(3)
    answer = admin.get(f"/admin/chat/{page}/", {"q": words})
    assert answer.status_code == 200
    assert answer.context["cl"].result_count == found


def test_large_tables_are_counted_by_estimate(alice: Any, django_assert_num_queries: Any) -> None:
    Thread.objects.bulk_create(Thread(owner=alice, title=str(number)) for number in range(100))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE pg_class SET reltuples = 123456 WHERE oid = 'chat_thread'::regclass")
    with django_assert_num_queries(1):
        assert EstimatingPaginator(Thread.objects.order_by("pk"), 50).count == 123456
    assert EstimatingPaginator(Thread.objects.filter(title="7").order_by("pk"), 50).count == 1
