"""The same key: one message, one call of the assistant, the same answer, however the requests meet."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone
from rest_framework.test import APIClient

from chat import limits
from chat.agents import AgentError, ToolCallRequested
from chat.models import Message, Thread, ToolCall
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


def ask(api: APIClient, key: str, message: str = "Hello", **extra: Any) -> Any:
    return api.post("/api/chat", {"message": message, **extra.pop("body", {})}, HTTP_IDEMPOTENCY_KEY=key, **extra)


def in_thread(function: Callable[[], Any]) -> Any:
    try:
        return function()
    finally:
        connections.close_all()


def test_the_same_request_again_gets_the_same_answer(api: APIClient, agent: Any, key: str) -> None:
    agent.will(ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
    agent.will("It is 42.")
    first, second = ask(api, key), ask(api, key)
    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()
    assert agent.calls == 2
    assert Thread.objects.count() == 1
    assert Message.objects.count() == 2


@pytest.mark.parametrize("tool", ["calculate", "current_time", "database_status", "search_my_messages"])
def test_the_same_answer_is_the_same_to_the_letter(api: APIClient, agent: Any, key: str, tool: str) -> None:
    """PostgreSQL keeps the keys of JSON in an order of its own."""
    agent.will(
        ToolCallRequested("c1", tool, {"query": "it", "timezone": "UTC", "a": {"cc": 1, "b": [{"z": 1, "y": 2}]}})
    )
    first, second = ask(api, key), ask(api, key)
    assert first.content == second.content
    call = first.json()["reply"]["tool_calls"][0]
    listed = api.get(f"/api/threads/{first.json()['thread']['id']}/messages").json()["results"][1]["tool_calls"][0]
    assert json.dumps(listed) == json.dumps(call)


def test_the_answer_can_be_had_as_events_the_second_time(api: APIClient, agent: Any, key: str) -> None:
    agent.will(ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
    agent.will("It ", "is ", "42.")
    first = ask(api, key).json()
    told = list(events(ask(api, key, HTTP_ACCEPT=STREAM).streaming_content))
    assert [name for name, _ in told] == ["turn", "tool_call", "tool_result", "delta", "done"]
    assert told[3][1] == {"text": "It is 42."}
    assert told[-1][1] == first


@pytest.mark.parametrize("ending", ["failed", "interrupted"])
def test_a_reply_that_broke_off_is_told_again_as_it_is(api: APIClient, agent: Any, key: str, ending: str) -> None:
    if ending == "failed":
        agent.will("Half ", AgentError("It broke."))
        first = ask(api, key).json()
    else:
        agent.will("Half ", threading.Event())
        answer = ask(api, key, HTTP_ACCEPT=STREAM)
        told = events(answer.streaming_content)
        next(told), next(told)
        answer.close()
        wait_until(lambda: Message.objects.filter(status="interrupted").exists())
        first = ask(api, key).json()
    assert first["reply"]["status"] == ending
    assert first["reply"]["content"] == "Half "
    assert ask(api, key).json() == first
    assert agent.calls == 1


@pytest.mark.parametrize("accept", ["application/json", STREAM])
def test_two_that_arrive_together_are_one(
    alice: Any, api_of: Callable[[Any], APIClient], agent: Any, key: str, accept: str
) -> None:
    """Eight at once, many times over: the database's constraint decides, not a look beforehand."""

    def one() -> Any:
        answer = ask(api_of(alice), key, HTTP_ACCEPT=accept)
        if accept == STREAM:
            return next(data for name, data in events(answer.streaming_content) if name == "done")
        return answer.json()

    clients = 8
    ready = threading.Barrier(clients)
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(lambda _: in_thread(lambda: (ready.wait(), one())[1]), range(clients)))
    assert all(answer == answers[0] for answer in answers)
    assert agent.calls == 1
    assert Thread.objects.count() == 1
    assert Message.objects.count() == 2


@pytest.mark.parametrize("accept", ["application/json", STREAM])
def test_a_request_that_comes_while_the_first_streams_waits_for_it(
    alice: Any, api: APIClient, api_of: Callable[[Any], APIClient], agent: Any, key: str, accept: str
) -> None:
    gate = threading.Event()
    agent.will("First ", gate, "second.")
    first = events(ask(api, key, HTTP_ACCEPT=STREAM).streaming_content)
    next(first)

    def again() -> Any:
        answer = ask(api_of(alice), key, HTTP_ACCEPT=accept)
        return list(events(answer.streaming_content))[-1][1] if accept == STREAM else answer.json()

    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(in_thread, again)
        with pytest.raises(TimeoutError):
            second.result(0.2)
        gate.set()
        *_, (name, done) = first
        assert name == "done"
        assert second.result(5) == done
    assert agent.calls == 1


def test_a_waiting_client_that_leaves_does_not_stop_the_first(alice: Any, api: APIClient, agent: Any, key: str) -> None:
    gate = threading.Event()
    agent.will("First ", gate, "second.")
    first = events(ask(api, key, HTTP_ACCEPT=STREAM).streaming_content)
    next(first)
    ask(api, key, HTTP_ACCEPT=STREAM).close()
    gate.set()
    *_, (_, done) = first
    assert done["reply"]["status"] == "complete"


@pytest.mark.parametrize("change", ["message", "thread"])
def test_the_key_with_another_body_is_a_422(api: APIClient, alice: Any, agent: Any, key: str, change: str) -> None:
    assert ask(api, key).status_code == 200
    if change == "message":
        answer = ask(api, key, "Something else")
    else:
        answer = ask(api, key, body={"thread": str(Thread.objects.get().pk)})
    assert answer.status_code == 422
    assert answer["Content-Type"] == "application/problem+json"
    assert "Idempotency-Key" in answer.json()["detail"]
    assert agent.calls == 1


def test_a_key_belongs_to_its_user(api: APIClient, bob: Any, api_of: Any, agent: Any, key: str) -> None:
    mine, theirs = ask(api, key).json(), ask(api_of(bob), key).json()
    assert mine["message"]["id"] != theirs["message"]["id"]
    assert agent.calls == 2


def test_in_an_existing_thread_too(api: APIClient, alice: Any, agent: Any, key: str) -> None:
    thread = Thread.objects.create(owner=alice, title="Mine")
    answers = [ask(api, key, body={"thread": str(thread.pk)}).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert thread.messages.count() == 2


def test_a_request_whose_process_died_is_run_again(
    api: APIClient, alice: Any, agent: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was stored, but nobody ever answered: the client asks once more, and gets an answer."""
    monkeypatch.setattr(limits, "TAKE_OVER_SECONDS", 0)
    agent.will("First answer.")
    lost = ask(api, key).json()
    long_ago = timezone.now() - timedelta(seconds=31)
    reply = Message.objects.filter(pk=lost["reply"]["id"])
    reply.update(status="streaming", content="Half an", updated_at=long_ago)
    ToolCall.objects.create(reply_id=lost["reply"]["id"], position=0, name="calculate")
    agent.will("Second answer.")
    told = ask(api, key).json()
    assert told["reply"]["content"] == "Second answer."
    assert told["reply"]["id"] == lost["reply"]["id"]
    assert Message.objects.count() == 2
    assert not ToolCall.objects.exists()
    assert ask(api, key).json() == told
    assert agent.calls == 2


def test_a_reply_that_its_process_could_only_not_save_is_left_to_it(
    api: APIClient, agent: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage it looks abandoned, until the other process has reached the database again."""
    monkeypatch.setattr(limits, "TAKE_OVER_SECONDS", 0.5)
    first = ask(api, key).json()
    reply = Message.objects.filter(pk=first["reply"]["id"])
    reply.update(status="streaming", content="", updated_at=timezone.now() - timedelta(seconds=31))
    again = events(ask(api, key, HTTP_ACCEPT=STREAM).streaming_content)
    next(again)
    reply.update(status="complete", content="Hello!")
    *_, (_, done) = again
    assert done == first
    assert agent.calls == 1
