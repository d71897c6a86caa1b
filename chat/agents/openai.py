"""An assistant behind any server that speaks the protocol of OpenAI's chat completions.

The client runs in an event loop of this thread: only there can a request be ended while it waits, whether for a
connection, for the first word or for the next one. Nothing is tried twice: the person who asked may do that.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import openai

from chat.agents.base import AgentError, Said, TextDelta, ToolCallRequested, ToolDescription

CONNECT_SECONDS = 5.0
SILENCE_SECONDS = 60.0
TITLE_SECONDS = 20.0
# How soon a cancelled request ends.
LOOK_SECONDS = 0.2

INSTRUCTIONS = (
    "You are a helpful assistant in a chat application. Answer in Markdown, as briefly as the question allows. "
    "Use the tools for arithmetic, for the time, for what was said before in other threads, and for the state of the "
    "database."
)
TITLE_INSTRUCTIONS = (
    "Give the conversation that begins with the following message a title of at most six words, "
    "in the language of the message. Answer with the title alone, without quotes."
)

Item = TextDelta | ToolCallRequested


class OpenAIAgent:
    def __init__(
        self, *, model: str, base_url: str | None, api_key: str, silence_seconds: float = SILENCE_SECONDS
    ) -> None:
        self._model, self._base_url, self._silence_seconds = model, base_url, silence_seconds
        # Servers of one's own often want no key, but the client does.
        self._api_key = api_key or "none"

    def stream(
        self, *, messages: Sequence[Said], tools: Sequence[ToolDescription], cancelled: threading.Event
    ) -> Iterator[Item]:
        told = [{"role": "system", "content": INSTRUCTIONS}, *map(_as_message, messages)]
        yield from self._run(self._step(told, tools), cancelled)

    def title(self, *, message: str) -> str:
        told = [{"role": "system", "content": TITLE_INSTRUCTIONS}, {"role": "user", "content": message[:2000]}]
        overdue = threading.Event()
        alarm = threading.Timer(TITLE_SECONDS, overdue.set)
        alarm.start()
        try:
            items = list(self._run(self._step(told, ()), overdue))
        finally:
            alarm.cancel()
        if overdue.is_set():
            raise AgentError(f"The model found no title within {TITLE_SECONDS:.0f} seconds.")
        return "".join(item.text for item in items if isinstance(item, TextDelta)).strip(" \"'\n.")

    def _run(self, step: AsyncIterator[Item], cancelled: threading.Event) -> Iterator[Item]:
        """Item by item; leaving this generator, however it happens, ends the request."""
        with asyncio.Runner() as runner:
            try:
                while (item := runner.run(_next(step, cancelled))) is not None:
                    yield item
            finally:
                runner.run(step.aclose())  # type: ignore[attr-defined]  # it is a generator

    async def _step(self, messages: list[dict[str, Any]], tools: Sequence[ToolDescription]) -> AsyncIterator[Item]:
        timeout = openai.Timeout(self._silence_seconds, connect=CONNECT_SECONDS)
        offered: dict[str, Any] = {"tools": [_as_tool(tool) for tool in tools]} if tools else {}
        requested: dict[int, dict[str, str]] = {}
        finish_reason = None
        try:
            async with (
                openai.AsyncOpenAI(
                    base_url=self._base_url, api_key=self._api_key, timeout=timeout, max_retries=0
                ) as client,
                await client.chat.completions.create(
                    model=self._model, messages=messages, stream=True, **offered
                ) as chunks,
            ):
                async for chunk in chunks:
                    if not chunk.choices:
                        continue
                    choice = chunk.choices[0]
                    if choice.delta.content:
                        yield TextDelta(choice.delta.content)
                    for part in choice.delta.tool_calls or ():
                        _gather(requested, part)
                    if choice.finish_reason:
                        finish_reason = choice.finish_reason
                        break
        except openai.OpenAIError as error:
            raise AgentError(self._explain(error)) from error
        except (ValueError, AttributeError, TypeError) as error:
            raise AgentError("The model's server sent something that is not its protocol.") from error
        if finish_reason is None:
            raise AgentError("The model's server broke off in mid-answer.")
        if finish_reason == "length":
            raise AgentError("The model has reached the longest answer it may give.")
        if finish_reason == "content_filter":
            raise AgentError("The model's server withheld the rest of the answer.")
        for position in sorted(requested):
            yield _as_request(position, requested[position])

    def _explain(self, error: openai.OpenAIError) -> str:
        """For the person who asked, and for whoever runs the site; never the server's own text."""
        match error:
            case openai.APITimeoutError():
                return f"The model was silent for {self._silence_seconds:g} seconds. Try again."
            case openai.APIConnectionError():
                return "The model's server cannot be reached, or broke off in mid-answer. Try again."
            case openai.RateLimitError():
                wait = error.response.headers.get("retry-after", "")
                when = f"in {wait} seconds" if wait.isdigit() else "in a moment"
                return f"The model's server is busy (429). Try again {when}."
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                return "The model's server does not accept the key of this site (OPENAI_API_KEY)."
            case openai.NotFoundError():
                return "The model's server does not know the model of this site (CHAT_MODEL, OPENAI_BASE_URL)."
            case openai.BadRequestError():
                return "The model's server refuses the request; perhaps the conversation is too long for it."
            case openai.APIStatusError():
                return f"The model's server failed ({error.status_code}). Try again."
        return "The model's server reported an error in mid-answer. Try again."


async def _next(step: AsyncIterator[Item], cancelled: threading.Event) -> Item | None:
    """The next item; None after the last one, and soon after `cancelled` is set."""

    async def following() -> Item | None:
        return await anext(step, None)

    task = asyncio.ensure_future(following())
    while not task.done():
        await asyncio.wait({task}, timeout=LOOK_SECONDS)
        if cancelled.is_set() and not task.done():
            task.cancel()
            await asyncio.wait({task})
            return None
    return task.result()


def _gather(requested: dict[int, dict[str, str]], part: Any) -> None:
    """Tool calls come in pieces: the name first, then the arguments bit by bit."""
    call = requested.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
    call["id"] = part.id or call["id"]
    if part.function is not None:
        call["name"] += part.function.name or ""
        call["arguments"] += part.function.arguments or ""


def _as_request(position: int, call: dict[str, str]) -> ToolCallRequested:
    try:
        arguments = json.loads(call["arguments"] or "{}")
    except ValueError:
        arguments = None
    # A tool says what it misses; the model reads that and does better.
    known = arguments if isinstance(arguments, dict) else {}
    return ToolCallRequested(id=call["id"] or f"call_{position}", name=call["name"], arguments=known)


def _as_message(said: Said) -> dict[str, Any]:
    message: dict[str, Any] = {"role": said.role, "content": said.content}
    if said.tool_call_id is not None:
        message["tool_call_id"] = said.tool_call_id
    if said.tool_calls:
        message["content"] = said.content or None
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments)},
            }
            for call in said.tool_calls
        ]
    return message


def _as_tool(tool: ToolDescription) -> dict[str, Any]:
    function = {"name": tool.name, "description": tool.description, "parameters": dict(tool.parameters)}
    return {"type": "function", "function": function}
