"""The shapes in which a turn is told: the JSON answer and the data of each event. Both ways of asking use these."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from chat.models import Message, Thread, ToolCall
from chat.storable import in_order


def tool_call(call: ToolCall) -> dict[str, Any]:
    return {
        "id": str(call.pk),
        "name": call.name,
        # PostgreSQL forgets the order: told before it was stored or after, it is the same.
        "arguments": in_order(call.arguments),
        "result": in_order(call.result),
        "status": call.status,
        "duration_seconds": call.duration_seconds,
    }


def turn_started(*, thread: Thread, message: Message, reply: Message) -> dict[str, Any]:
    return {
        "thread": {"id": str(thread.pk), "title": thread.title},
        "message": {"id": str(message.pk), "role": message.role, "content": message.content},
        "reply": {"id": str(reply.pk), "status": Message.Status.STREAMING.value},
    }


def tool_requested(call: ToolCall) -> dict[str, Any]:
    return {"id": str(call.pk), "name": call.name, "arguments": in_order(call.arguments)}


def tool_returned(call: ToolCall) -> dict[str, Any]:
    told = tool_call(call)
    del told["arguments"]
    return told


def answer(*, thread: Thread, message: Message, reply: Message, tool_calls: Iterable[ToolCall]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "id": str(reply.pk),
        "content": reply.content,
        "status": str(reply.status),
        "tool_calls": [tool_call(call) for call in tool_calls],
    }
    if reply.error:
        told["error"] = reply.error
    return {**turn_started(thread=thread, message=message, reply=reply), "reply": told}


def error(
    *, status: int, title: str, detail: str, retry_after: int | None = None, **more: dict[str, Any] | bool
) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "about:blank", "status": status, "title": title, "detail": detail, **more}
    return told if retry_after is None else {**told, "retry_after": retry_after}


def places(*, thread: Thread, message: Message, reply: Message) -> dict[str, dict[str, Any]]:
    """Where a turn whose end cannot be told is to be found."""
    return {"thread": {"id": str(thread.pk)}, "message": {"id": str(message.pk)}, "reply": {"id": str(reply.pk)}}
