"""A thread is deleted while somebody else works on it: one waits for the other, and both are told the truth."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections, transaction
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from chat import limits, services, watch
from chat.agents import ToolCallRequested
from chat.models import Message, Thread, ToolCall
from chat.services import StartedTurn, ThreadGoneError
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif(
        os.environ.get("TEST_POOL_MAX_SIZE") == "1", reason="two transactions that meet need two connections"
    ),
]


def in_thread(work: Callable[[], Any]) -> Any:
    try:
        return work()
    finally:
        connections.close_all()


def waiting_for_a_lock() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                       "AND wait_event_type = 'Lock'")  # fmt: skip
        return int(cursor.fetchone()[0])


@contextmanager
def uncommitted(work: Callable[[], Any]) -> Iterator[Callable[[Callable[[], Any]], Any]]:
    """Somebody else has done `work` and commits it only when what is called with the result waits for that."""
    done, may_commit = threading.Event(), threading.Event()

    def first() -> None:
        block = transaction.atomic()
        block._from_testcase = True  # the test's own: `retry` refuses to begin within any other
        with block:
            work()
            done.set()
            assert may_commit.wait(10)

    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(in_thread, first)
        assert done.wait(5)

        def meanwhile(then: Callable[[], Any]) -> Any:
            second: Future[Any] = pool.submit(in_thread, then)
            try:
                wait_until(lambda: waiting_for_a_lock() == 1, what="the second one to wait")
            finally:
                may_commit.set()
            held.result(5)
            return second.result(5)

        try:
            yield meanwhile
        finally:
            may_commit.set()


@pytest.fixture
def turn(alice: Any) -> StartedTurn:
    """A question whose reply broke off."""
    started = services.start_turn(author=alice, message="Why?")
    Message.objects.filter(pk=started.reply.pk).update(status="interrupted")
    return started


REQUESTS: dict[str, Callable[[APIClient, StartedTurn], Any]] = {
    "ask": lambda api, turn: api.post("/api/chat", {"message": "And?", "thread": str(turn.thread.pk)}),
    "ask again": lambda api, turn: api.post(f"/api/messages/{turn.reply.pk}/retry"),
    "rename": lambda api, turn: api.patch(f"/api/threads/{turn.thread.pk}", {"title": "New"}),
    "delete": lambda api, turn: api.delete(f"/api/threads/{turn.thread.pk}"),
}


@pytest.mark.parametrize("request_name", REQUESTS)
def test_a_thread_that_goes_during_a_request_is_a_404(
    api: APIClient, agent: Any, turn: StartedTurn, request_name: str
) -> None:
    with uncommitted(lambda: services.delete_thread(thread=turn.thread)) as meanwhile:
        answer = meanwhile(lambda: REQUESTS[request_name](api, turn))
    assert answer.status_code == 404, answer.content
    assert answer["Content-Type"] == "application/problem+json"
    assert "of yours" in answer.json()["detail"]
    assert agent.calls == 0
    assert not Thread.objects.exists()


WRITES: dict[str, Callable[[StartedTurn], Any]] = {
    "a question": lambda turn: services.start_turn(author=turn.thread.owner, message="And?", thread=turn.thread),
    "a tool call": lambda turn: services.save_reply(
        reply=turn.reply, content="…", status="streaming", tool_calls=[ToolCall(reply=turn.reply, position=0, name="a")]
    ),
    "another attempt": lambda turn: services.restart_reply(reply=turn.reply),
    "a title": lambda turn: services.rename_thread(thread=turn.thread, title="New"),
}


@pytest.mark.parametrize("write", WRITES)
def test_what_is_stored_during_a_deletion_goes_too(api: APIClient, turn: StartedTurn, write: str) -> None:
    with uncommitted(lambda: WRITES[write](turn)) as meanwhile:
        answer = meanwhile(lambda: api.delete(f"/api/threads/{turn.thread.pk}"))
    assert answer.status_code == 204, answer.content
    for model in (Thread, Message, ToolCall):
        assert not model.objects.exists()


@pytest.mark.parametrize("how", ["one", "selected"])
def test_in_the_admin_too(client: Client, turn: StartedTurn, how: str) -> None:
    client.force_login(User.objects.create_superuser("root", password="root"))
    if how == "one":
        address, form = f"/admin/chat/thread/{turn.thread.pk}/delete/", {"post": "yes"}
    else:
        address = "/admin/chat/thread/"
        form = {"post": "yes", "action": "delete_selected", "_selected_action": str(turn.thread.pk)}
    with uncommitted(lambda: WRITES["a tool call"](turn)) as meanwhile:
        answer = meanwhile(lambda: client.post(address, form))
    assert answer.status_code == 302
    assert not Message.objects.exists()


def test_retention_leaves_a_thread_that_somebody_speaks_in_just_then(turn: StartedTurn) -> None:
    Thread.objects.update(updated_at=timezone.now() - timedelta(days=31))
    with uncommitted(lambda: WRITES["a question"](turn)) as meanwhile:
        assert meanwhile(lambda: services.delete_threads_untouched_for(days=30)) == 0
    assert turn.thread.messages.count() == 4


def test_a_repeated_request_whose_message_has_just_gone_is_told_so(turn: StartedTurn) -> None:
    """Between the constraint's refusal and the look at what it refused for."""
    with pytest.raises(ThreadGoneError):
        services.earlier_turn(
            author=turn.thread.owner, idempotency_key=turn.message.pk, request_fingerprint="of a deleted message"
        )


def test_a_waiting_repetition_is_told_that_the_thread_went(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "0193c0de-0000-4000-8000-000000000001"
    agent.will("Half an ", threading.Event())
    first = events(
        api.post("/api/chat", {"message": "Go"}, HTTP_ACCEPT=STREAM, HTTP_IDEMPOTENCY_KEY=key).streaming_content
    )
    _, turn = next(first)
    again = events(
        api.post("/api/chat", {"message": "Go"}, HTTP_ACCEPT=STREAM, HTTP_IDEMPOTENCY_KEY=key).streaming_content
    )
    next(again)
    api.delete(f"/api/threads/{turn['thread']['id']}")
    assert [(name, data["status"]) for name, data in again] == [("error", 404)]
    assert list(first)[-1][1]["status"] == 409


@pytest.mark.parametrize("at", ["a checkpoint", "a tool call"])
def test_a_reply_that_another_process_deleted_stops_its_assistant(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """A model that nobody reads costs money."""
    gate, never = threading.Event(), threading.Event()
    if at == "a checkpoint":
        monkeypatch.setattr(limits, "CHECKPOINT_SECONDS", 0.05)
        agent.will("Half an ", never)
    else:
        agent.will(gate, ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
        agent.will("It is 42.", never)
    told = events(api.post("/api/chat", {"message": "Go"}, HTTP_ACCEPT=STREAM).streaming_content)
    _, turn = next(told)
    services.delete_thread(thread=Thread.objects.get(pk=turn["thread"]["id"]))
    gate.set()
    wait_until(lambda: not watch.living(), what="the end of the turn")
    assert list(told)[-1][1]["status"] == 409
    assert agent.calls == 1
