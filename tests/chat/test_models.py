"""The rules of a conversation hold in the database, whoever writes to it."""

from __future__ import annotations

import os
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from chat.identifiers import new_id
from chat.models import Message, Thread, ToolCall

pytestmark = pytest.mark.django_db


@pytest.fixture
def thread(alice: Any) -> Thread:
    return Thread.objects.create(owner=alice, title="A thread")


@pytest.fixture
def question(thread: Thread, alice: Any) -> Message:
    return Message.objects.create(thread=thread, role="user", content="Why?", author=alice)


@pytest.fixture
def reply(question: Message) -> Message:
    return Message.objects.create(thread=question.thread, role="assistant", status="streaming", in_reply_to=question)


def refuses(constraint: str, write: Any) -> None:
    with pytest.raises(IntegrityError, match=constraint), transaction.atomic():
        write()


def test_ids_made_by_one_process_rise() -> None:
    """Messages are listed by id: within a process later ones must be larger, also within a millisecond."""
    ids = [new_id() for _ in range(20_000)]
    assert ids == sorted(ids)
    assert len(set(ids)) == len(ids)
    assert ids[0].version == 7


def test_ids_of_a_forked_child_differ_from_its_parents() -> None:
    """The generator's state is copied by fork; its next ids must not be."""
    reading, writing = os.pipe()
    new_id()
    child = os.fork()
    if child == 0:
        os.write(writing, b"".join(new_id().bytes for _ in range(100)))
        os._exit(0)
    mine = {new_id().bytes for _ in range(100)}
    os.waitpid(child, 0)
    theirs = os.read(reading, 1600)
    os.close(reading)
    os.close(writing)
    assert mine.isdisjoint(theirs[at : at + 16] for at in range(0, 1600, 16))


def test_status_is_one_of_four(reply: Message) -> None:
    refuses("chat_message_status_known", lambda: Message.objects.filter(pk=reply.pk).update(status="odd"))


def test_user_messages_are_complete(question: Message) -> None:
    refuses("chat_message_user_or_reply", lambda: Message.objects.filter(pk=question.pk).update(status="streaming"))


def test_a_role_is_user_or_assistant(question: Message) -> None:
    refuses("chat_message_user_or_reply", lambda: Message.objects.filter(pk=question.pk).update(role="system"))


def test_a_reply_replies_to_something(reply: Message) -> None:
    refuses("chat_message_user_or_reply", lambda: Message.objects.filter(pk=reply.pk).update(in_reply_to=None))


def test_a_question_has_one_reply(question: Message, reply: Message) -> None:
    refuses(
        "in_reply_to",
        lambda: Message.objects.create(
            thread=question.thread, role="assistant", status="streaming", in_reply_to=question
        ),
    )


def test_a_user_says_something(question: Message) -> None:
    refuses("chat_message_user_says_something", lambda: Message.objects.filter(pk=question.pk).update(content=""))


def test_an_idempotency_key_is_used_once_per_user(thread: Thread, alice: Any, bob: Any) -> None:
    def ask(author: Any, key: Any) -> Message:
        return Message.objects.create(
            thread=thread, role="user", content="?", author=author, idempotency_key=key, request_fingerprint="f"
        )

    key = new_id()
    ask(alice, key)
    ask(bob, key)
    refuses("chat_message_once_per_key", lambda: ask(alice, key))


def test_a_key_comes_with_a_fingerprint(question: Message) -> None:
    refuses(
        "chat_message_key_with_fingerprint",
        lambda: Message.objects.filter(pk=question.pk).update(idempotency_key=new_id()),
    )


def test_tool_calls_of_a_reply_have_an_order(reply: Message) -> None:
    ToolCall.objects.create(reply=reply, position=0, name="a")
    refuses("chat_toolcall_position", lambda: ToolCall.objects.create(reply=reply, position=0, name="b"))


def test_tool_calls_have_a_known_status_and_no_negative_duration(reply: Message) -> None:
    refuses(
        "chat_toolcall_status_known", lambda: ToolCall.objects.create(reply=reply, position=0, name="a", status="x")
    )
    refuses(
        "chat_toolcall_duration_positive",
        lambda: ToolCall.objects.create(reply=reply, position=0, name="a", duration_seconds=-1),
    )


@pytest.mark.parametrize(
    ("sql", "index"),
    [
        (
            "SELECT * FROM chat_thread WHERE owner_id = 1 ORDER BY updated_at DESC, id DESC LIMIT 50",
            "chat_thread_of_owner",
        ),
        (
            "SELECT * FROM chat_message WHERE thread_id = '01a1fdeb-0a41-762c-8e76-4f1ec1ce6c14' ORDER BY id LIMIT 99",
            "chat_message_of_thread",
        ),
        (
            "SELECT * FROM chat_message WHERE to_tsvector('english'::regconfig, COALESCE(content, '')) "
            "@@ websearch_to_tsquery('english'::regconfig, 'word')",
            "chat_message_search",
        ),
        ("SELECT * FROM chat_message WHERE status = 'streaming' AND updated_at < now()", "chat_message_streaming"),
    ],
)
def test_every_list_has_its_index(sql: str, index: str) -> None:
    """With sequential scans out of the question the planner must find the index that was made for the list."""
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert index in plan, plan
