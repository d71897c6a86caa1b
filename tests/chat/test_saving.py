"""A reply and its tool calls are saved by one statement: both, or neither."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError

from chat import services
from chat.agents import ToolCallRequested
from chat.models import Message, Thread, ToolCall
from chat.services import StartedTurn

pytestmark = pytest.mark.django_db(transaction=True)

ODD = {
    "text": "quotes ' \" \\ and %s, {}",
    "letters": "ẞ 中 🙂",
    "numbers": [0.1, -2.5e-7, 12345678901234567890, 3],
    "nothing": None,
    "nested": [{"a": [[], {}, ""]}, True],
}


@pytest.fixture
def turn(alice: Any) -> StartedTurn:
    return services.start_turn(author=alice, message="Why?")


def call_of(turn: StartedTurn, **values: Any) -> ToolCall:
    return ToolCall(reply=turn.reply, **{"position": 0, "name": "calculate", **values})


def save(turn: StartedTurn, *calls: ToolCall, **values: Any) -> bool:
    return services.save_reply(
        **{"reply": turn.reply, "content": "Because.", "status": "streaming", "tool_calls": calls, **values}
    )


@pytest.mark.parametrize("result", [None, ODD, [], "", 0, False, 1.5])
@pytest.mark.parametrize("seconds", [None, 0.1])
def test_a_call_comes_back_as_it_was_stored(turn: StartedTurn, result: Any, seconds: float | None) -> None:
    call = call_of(turn, name="a 'name' %s", arguments=ODD, result=result, status="complete", duration_seconds=seconds)
    assert save(turn, call)
    stored = ToolCall.objects.get()
    for name in (field.attname for field in ToolCall._meta.concrete_fields):
        assert getattr(stored, name) == getattr(call, name)
    assert ToolCall.objects.filter(result__isnull=True).exists() is (result is None)


def test_a_second_save_adds_what_is_new_and_changes_what_became_known(turn: StartedTurn) -> None:
    first = call_of(turn, arguments={"a": 1})
    assert save(turn, first)
    first.status, first.result, first.duration_seconds, first.arguments = "complete", {"value": 42}, 0.5, {"a": 2}
    assert save(turn, first, call_of(turn, position=1, name="current_time"), content="Because!", status="complete")
    one, two = ToolCall.objects.order_by("position")
    assert (one.status, one.result, one.duration_seconds, one.arguments) == ("complete", {"value": 42}, 0.5, {"a": 1})
    assert (two.status, two.result, two.duration_seconds, two.name) == ("running", None, None, "current_time")
    reply = Message.objects.get(pk=turn.reply.pk)
    assert (reply.content, reply.status) == ("Because!", "complete")
    assert reply.updated_at > turn.reply.updated_at


@pytest.mark.parametrize("why", ["a newer attempt", "it has ended", "it is gone"])
def test_who_may_not_write_the_reply_stores_no_call_either(turn: StartedTurn, why: str) -> None:
    reply = Message.objects.filter(pk=turn.reply.pk)
    if why == "a newer attempt":
        reply.update(attempt=2)
    elif why == "it has ended":
        reply.update(status="failed")
    else:
        Thread.objects.all().delete()
    assert not save(turn, call_of(turn))
    assert not ToolCall.objects.exists()
    assert not reply.filter(content="Because.").exists()


def test_a_call_that_cannot_be_stored_leaves_the_reply_as_it_was(turn: StartedTurn) -> None:
    with pytest.raises(IntegrityError, match="chat_toolcall_duration_positive"):
        save(turn, call_of(turn, duration_seconds=-1))
    assert Message.objects.get(pk=turn.reply.pk).content == ""


def test_a_search_is_stored_with_what_comes_next(api: Any, agent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It asks the database itself and is soon done."""
    saves: list[list[str]] = []
    save_reply = services.save_reply

    def noted(**arguments: Any) -> bool:
        saves.append([f"{call.name} {call.status}" for call in arguments["tool_calls"]])
        return save_reply(**arguments)

    monkeypatch.setattr(services, "save_reply", noted)
    agent.will(
        ToolCallRequested("c1", "search_my_messages", {"query": "x"}), ToolCallRequested("c2", "current_time", {})
    )
    told = api.post("/api/chat", {"message": "Hi"}).json()
    assert saves == [["search_my_messages complete", "current_time running"], ["current_time complete"]]
    assert [call["status"] for call in told["reply"]["tool_calls"]] == ["complete", "complete"]
