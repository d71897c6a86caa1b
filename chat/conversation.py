"""What is said in a turn: step after step of the assistant, with the tools it asks for run in between.

Knows nothing of the database or of readers: whoever runs it is told of every piece of text and every tool call.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from chat import limits, tools
from chat.agents import Agent, AgentError, Said, TextDelta, ToolCallRequested
from chat.agents.base import ToolDescription
from chat.models import Message, ToolCall
from chat.storable import storable_json, storable_text

logger = logging.getLogger(__name__)


class Cancellation(threading.Event):
    """Stop soon; with a failure if it is one, else because nobody wants the rest."""

    failure: str | None = None

    def cancel(self, *, failure: str | None = None) -> None:
        self.failure = self.failure or failure
        self.set()


@dataclass(kw_only=True)
class Conversation:
    """One attempt at a reply: `content` and `tool_calls` grow while `run` runs."""

    choose_agent: Callable[[], Agent]
    said: list[Said]
    context: tools.ToolContext
    reply: Message
    cancellation: Cancellation
    on_text: Callable[[str], object]
    on_tool_call: Callable[[ToolCall], object]

    def __post_init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0
        self.tool_calls: list[ToolCall] = []

    @property
    def content(self) -> str:
        return "".join(self._pieces)

    def run(self) -> tuple[Message.Status, str | None]:
        """How it ended, and what to tell the person if it went wrong. Never raises for the assistant's failures."""
        try:
            self._take_steps()
        except AgentError as error:
            if not self.cancellation.is_set():
                return Message.Status.FAILED, str(error)[:300]
        except Exception:
            logger.exception("The assistant failed")
            return Message.Status.FAILED, "The assistant failed unexpectedly."
        if self.cancellation.failure:
            return Message.Status.FAILED, self.cancellation.failure
        if self.cancellation.is_set():
            return Message.Status.INTERRUPTED, None
        if not self._length:
            return Message.Status.FAILED, "The assistant gave no answer."
        return Message.Status.COMPLETE, None

    def _take_steps(self) -> None:
        agent = self.choose_agent()
        for step in range(limits.TOOL_ROUNDS + 1):
            # The last step is offered no tools, so that it has to say something.
            offered: Sequence[ToolDescription] = tools.DESCRIPTIONS if step < limits.TOOL_ROUNDS else ()
            stream = agent.stream(messages=self.said, tools=offered, cancelled=self.cancellation)
            text, requests = self._listen(stream)
            if not requests or self.cancellation.is_set():
                return
            self.said.append(Said(role="assistant", content=text, tool_calls=tuple(requests)))
            for request in requests:
                self.said.append(self._use_tool(request))
                if self.cancellation.is_set():
                    return

    def _listen(self, stream: Iterator[TextDelta | ToolCallRequested]) -> tuple[str, list[ToolCallRequested]]:
        text: list[str] = []
        requests: list[ToolCallRequested] = []
        with closing(stream):  # type: ignore[type-var]  # agents are generators: closing one ends its request
            for item in stream:
                if self.cancellation.is_set():
                    break
                if isinstance(item, ToolCallRequested):
                    requests.append(item)
                    continue
                piece = storable_text(item.text)
                text.append(piece)
                self._pieces.append(piece)
                self._length += len(piece)
                self.on_text(piece)
                if self._length > limits.REPLY_CHARACTERS:
                    self.cancellation.cancel(failure=f"Stopped at {limits.REPLY_CHARACTERS:,} characters.")
        return "".join(text), requests

    def _use_tool(self, request: ToolCallRequested) -> Said:
        call = ToolCall(
            reply=self.reply,
            position=len(self.tool_calls),
            name=storable_text(request.name)[:64],
            arguments=storable_json(request.arguments),
        )
        self.tool_calls.append(call)
        self.on_tool_call(call)
        started = time.perf_counter()
        call.status, call.result = tools.run(call.name, call.arguments, self.context)
        call.duration_seconds = round(time.perf_counter() - started, 6)
        self.on_tool_call(call)
        return Said(role="tool", content=json.dumps(call.result, ensure_ascii=False), tool_call_id=request.id)
