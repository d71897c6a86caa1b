"""The protocol between a turn and whoever answers it: one call is one step of a model, told as a stream.

A step yields text as it comes, and tool calls. The turn runs the tools and asks for the next step with what they
returned; a step without tool calls is the last one. Agents know neither the database nor HTTP.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


@dataclass(frozen=True)
class TextDelta:
    text: str


@dataclass(frozen=True)
class ToolCallRequested:
    id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Said:
    """One contribution to the conversation, as a model is told it."""

    role: Literal["user", "assistant", "tool"]
    content: str
    tool_calls: tuple[ToolCallRequested, ...] = ()
    tool_call_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class ToolDescription:
    """What a model is told about a tool; `parameters` is a JSON schema."""

    name: str
    description: str
    parameters: Mapping[str, Any] = field(default_factory=lambda: {"type": "object", "properties": {}})


class AgentError(Exception):
    """The agent cannot go on. The text is written for the person who asked."""


class Agent(Protocol):
    def stream(
        self, *, messages: Sequence[Said], tools: Sequence[ToolDescription], cancelled: threading.Event
    ) -> Iterator[TextDelta | ToolCallRequested]:
        """One step. Returns soon after `cancelled` is set, also while it waits; raises AgentError."""
        ...

    def title(self, *, message: str) -> str:
        """A few words for the list of threads."""
        ...
