"""The same turn as server-sent events: told as it happens, and stopped when nobody listens."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from typing import Any

import pytest
from django.core.handlers.asgi import ASGIRequest
from django.test import AsyncClient
from rest_framework.test import APIClient

from chat import limits, streaming, watch
from chat.agents import AgentError, ToolCallRequested
from chat.channel import Channel
from chat.conversation import Cancellation
from chat.models import Message
from tests.chat.events import STREAM, events
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


def stream(api: APIClient, message: str, **extra: Any) -> Any:
    answer = api.post("/api/chat", {"message": message}, HTTP_ACCEPT=STREAM, **extra)
    assert answer.status_code == 200, answer
    return answer


def stored() -> Message:
    return Message.objects.get(role="assistant")


def test_events_come_in_order_and_end_with_the_answer(api: APIClient, agent: Any) -> None:
    agent.will(ToolCallRequested("c1", "calculate", {"expression": "6*7"}))
    agent.will("It is ", "42.")
    answer = stream(api, "What is six times seven?")
    assert answer["Content-Type"] == "text/event-stream; charset=utf-8"
    assert answer["X-Accel-Buffering"] == "no"
    told = list(events(answer.streaming_content))
    assert [name for name, _ in told] == ["turn", "tool_call", "tool_result", "delta", "delta", "done"]
    turn, call, result, one, two, done = (data for _, data in told)
    assert turn["reply"] == {"id": done["reply"]["id"], "status": "streaming"}
    assert turn["message"]["content"] == "What is six times seven?"
    assert call == {"id": result["id"], "name": "calculate", "arguments": {"expression": "6*7"}}
    assert result["result"]["value"] == "42"
    assert one["text"] + two["text"] == done["reply"]["content"] == stored().content
    assert done["reply"]["tool_calls"][0]["id"] == call["id"]


def test_a_delta_is_read_before_the_assistant_has_finished(api: APIClient, agent: Any) -> None:
    gate = threading.Event()
    agent.will("First ", gate, "second.")
    told = events(stream(api, "Go").streaming_content)
    assert [next(told)[0], next(told)] == ["turn", ("delta", {"text": "First "})]
    assert stored().status == "streaming"
    gate.set()
    assert [name for name, _ in told] == ["delta", "done"]


def test_done_is_said_after_the_reply_is_stored(api: APIClient, agent: Any) -> None:
    for name, _ in events(stream(api, "Go").streaming_content):
        if name == "done":
            assert stored().status == "complete"


def test_a_provider_that_fails_ends_with_a_failed_reply(api: APIClient, agent: Any) -> None:
    agent.will("Half ", AgentError("It broke."))
    *_, (name, data) = events(stream(api, "Go").streaming_content)
    assert name == "done"
    assert (data["reply"]["status"], data["reply"]["error"], data["reply"]["content"]) == (
        "failed",
        "It broke.",
        "Half ",
    )


def test_closing_the_stream_stops_the_assistant_and_keeps_what_was_said(api: APIClient, agent: Any) -> None:
    agent.will("Half an ", threading.Event())
    answer = stream(api, "Go")
    told = events(answer.streaming_content)
    assert [next(told)[0], next(told)[0]] == ["turn", "delta"]
    answer.close()
    wait_until(lambda: stored().status == "interrupted", what="the interruption")
    assert agent.stopped.is_set()
    assert stored().content == "Half an "


def test_a_stream_that_is_closed_before_it_is_read_stops_too(api: APIClient, agent: Any) -> None:
    """A generator that was never begun would not notice."""
    agent.will("Half an ", threading.Event())
    stream(api, "Go").close()
    wait_until(lambda: stored().status == "interrupted", what="the interruption")


def test_a_reader_that_never_comes_back_is_given_up(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "READER_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(limits, "CHECKPOINT_SECONDS", 0.05)
    agent.will("Half an ", threading.Event())
    answer = stream(api, "Go")
    wait_until(lambda: stored().status == "interrupted", what="the interruption")
    answer.close()


def test_a_silent_assistant_is_covered_by_heartbeats(
    api: APIClient, agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEARTBEAT_SECONDS", 0.05)
    gate = threading.Event()
    agent.will(gate, "At last.")
    chunks = iter(stream(api, "Go").streaming_content)
    next(chunks)
    assert next(chunks) == streaming.HEARTBEAT
    gate.set()
    assert list(events(chunks))[-1][0] == "done"


def test_stopping_the_process_saves_every_reply(api: APIClient, agent: Any) -> None:
    agent.will("One ", threading.Event())
    agent.will("Two ", threading.Event())
    answers = [stream(api, "Go"), stream(api, "Go on")]
    wait_until(lambda: agent.calls == 2)
    time.sleep(0.05)
    assert watch.interrupt_all() == 0
    assert sorted(Message.objects.filter(status="interrupted").values_list("content", flat=True)) == ["One ", "Two "]
    for answer in answers:
        *_, (name, data) = events(answer.streaming_content)
        assert (name, data["reply"]["status"]) == ("done", "interrupted")


def test_deleting_the_thread_stops_its_turn(api: APIClient, agent: Any) -> None:
    agent.will("Half an ", threading.Event())
    told = events(stream(api, "Go").streaming_content)
    _, turn = next(told)
    assert api.delete(f"/api/threads/{turn['thread']['id']}").status_code == 204
    *_, (name, data) = told
    assert (name, data["status"]) == ("error", 409)
    assert agent.stopped.is_set()


def test_under_asgi_the_events_are_read_by_the_loop(alice: Any, agent: Any) -> None:
    gate = threading.Event()
    agent.will("First ", gate, "second.")

    async def talk() -> list[str]:
        client = AsyncClient()
        await client.aforce_login(alice)
        answer = await client.post(
            "/api/chat", {"message": "Go"}, content_type="application/json", headers={"accept": STREAM}
        )
        assert answer.is_async
        names = []
        async for chunk in answer.streaming_content:
            for name, _ in events([chunk]):
                names.append(name)
                if name == "delta":
                    gate.set()
        return names

    assert asyncio.run(talk()) == ["turn", "delta", "delta", "done"]


class Producer:
    def __init__(self) -> None:
        self.channel = Channel()
        self.cancellation = Cancellation()


def asgi_response(producer: Producer) -> Any:
    scope = {"type": "http", "method": "POST", "path": "/", "headers": []}
    return streaming.event_stream(ASGIRequest(scope, None), producer)


def test_under_asgi_a_client_that_leaves_cancels_the_turn() -> None:
    producer = Producer()

    async def leave() -> None:
        task = asyncio.create_task(anext(aiter(asgi_response(producer))))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(leave())
    assert producer.cancellation.is_set()


def test_under_asgi_a_stream_that_nobody_closed_cancels_the_turn() -> None:
    """Django does not close a response whose request was cancelled."""
    producer = Producer()
    asgi_response(producer)
    gc.collect()
    assert producer.cancellation.is_set()


def test_a_coroutine_that_waits_takes_no_thread() -> None:
    """A hundred open streams on one loop: the default executor of a small machine has six threads."""
    producers = [Producer() for _ in range(100)]

    async def read(producer: Producer) -> Any:
        return await producer.channel.aread(10)

    async def all_of_them() -> list[Any]:
        tasks = [asyncio.create_task(read(producer)) for producer in producers]
        await asyncio.sleep(0.05)
        before = threading.active_count()
        for producer in producers:
            producer.channel.put("delta", {"text": "x"})
        assert threading.active_count() == before
        return await asyncio.gather(*tasks)

    assert all(len(read) == 1 for read in asyncio.run(all_of_them()))
