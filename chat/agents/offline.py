"""An assistant without a model or a network: understands plain requests, uses the tools, always answers the same."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from chat.agents.base import Said, TextDelta, ToolCallRequested, ToolDescription
from chat.agents.wording import greeting, help_text, markdown_sample, not_understood, result_text, without_markup
from chat.arithmetic import LONGEST_EXPRESSION

SEARCH = re.compile(
    r"^(?:please\s+|can you\s+|could you\s+)?(?:search|find|look)(?:\s+(?:up|in|through))?(?:\s+(?:my|all|our))?"
    r"(?:\s+(?:messages?|chats?|threads?|conversations?))?(?:\s+(?:for|about|with|on))?\s+(?P<text>.+)$",
    re.IGNORECASE | re.DOTALL,
)
SAID = re.compile(
    r"^(?:what|when|where) (?:did|have) (?:i|we|you) (?:say|said|write|written) about (?P<text>.+)$", re.IGNORECASE
)
TIME = re.compile(
    r"\b(?:what(?:'s| is)? (?:the )?(?:current )?(?:time|date|day)|what time|current (?:time|date)|time is it|"
    r"today'?s date|what day)\b",
    re.IGNORECASE,
)
ZONE = re.compile(r"\b(?:in|at)\s+(?P<zone>[A-Z][A-Za-z_]+(?:/[A-Za-z_+\-0-9]+)*)")
DATABASE = re.compile(r"\b(?:database|postgres(?:ql)?|db|connection pool)\b", re.IGNORECASE)
ASKS_STATE = re.compile(
    r"\b(?:ok|okay|fine|all right|alright|well|up|down|alive|healthy|health|status|state|doing|working|running|how|"
    r"reachable)\b",
    re.IGNORECASE,
)
SUM = re.compile(
    r"^(?:what(?:'s| is)|how much is|calculate|compute|work out|evaluate)?\s*"
    r"(?P<sum>[\d\s.+\-*/%()^×÷,a-z]+?)\s*[=?.!]*$",
    re.IGNORECASE,
)
# Words a sum may hold, so that a sentence is not taken for one.
SUM_WORDS = {"sqrt", "abs", "round", "min", "max", "sin", "cos", "tan", "log", "exp", "floor", "ceil", "pi", "e"}
HELP = re.compile(r"^(?:help|\?|what can you do|what do you do|who are you|how does this work)\b", re.IGNORECASE)
GREETING = re.compile(r"^(?:hi|hello|hey|good (?:morning|afternoon|evening)|hallo|moin|servus)\b", re.IGNORECASE)
MARKDOWN = re.compile(r"\bmarkdown\b", re.IGNORECASE)


class OfflineAgent:
    def __init__(self, *, delay_seconds: float = 0.0) -> None:
        self.delay_seconds = delay_seconds

    def stream(
        self, *, messages: Sequence[Said], tools: Sequence[ToolDescription], cancelled: threading.Event
    ) -> Iterator[TextDelta | ToolCallRequested]:
        last = messages[-1]
        if last.role == "tool":
            yield from self._speak(result_text(_name_of(messages), last.content), cancelled)
            return
        request = understand(last.content)
        if isinstance(request, str):
            yield from self._speak(request, cancelled)
            return
        name, arguments = request
        if name not in {tool.name for tool in tools}:
            yield from self._speak(f"I would need the tool *{name}* for that, which I do not have here.", cancelled)
            return
        calls_before = sum(len(message.tool_calls) for message in messages)
        yield ToolCallRequested(id=f"call_{calls_before + 1}", name=name, arguments=arguments)

    def title(self, *, message: str) -> str:
        """The request without its courtesies, at a word's end."""
        words = " ".join(without_markup(message[:1000]).split())
        words = re.sub(r"^(?:please|can you|could you|hi|hello|hey)[,!\s]+", "", words, flags=re.I)
        words = words.strip(" .?!") or " ".join(message.split())
        if len(words) > 48:
            words = words[:48].rsplit(" ", 1)[0].rstrip(" ,;:-") + "…"
        return words[:1].upper() + words[1:]

    def _speak(self, text: str, cancelled: threading.Event) -> Iterator[TextDelta]:
        """Word by word; the time to think is spread over the words, as a model's is."""
        words = re.findall(r"\s*\S+\s*", text)
        pause = self.delay_seconds / len(words)
        for word in words:
            if cancelled.wait(pause) if pause else cancelled.is_set():
                return
            yield TextDelta(word)


def understand(text: str) -> str | tuple[str, dict[str, Any]]:
    """The answer itself, or the tool to use and its arguments."""
    plain = " ".join(text.split())
    if HELP.match(plain):
        return help_text()
    if found := SAID.match(plain) or SEARCH.match(plain):
        return "search_my_messages", {"query": found["text"].strip(" .?!\"'“”")}
    if expression := _sum(plain):
        return "calculate", {"expression": expression}
    if DATABASE.search(plain) and ASKS_STATE.search(plain):
        return "database_status", {}
    if TIME.search(plain):
        zone = ZONE.search(plain)
        return "current_time", {"timezone": zone["zone"]} if zone else {}
    if MARKDOWN.search(plain):
        return markdown_sample()
    if GREETING.match(plain):
        return greeting()
    return not_understood(plain)


def _sum(text: str) -> str | None:
    found = SUM.match(text) if len(text) <= LONGEST_EXPRESSION else None
    if not found:
        return None
    expression = found["sum"].strip()
    words = re.findall(r"[a-z]+", expression.lower())
    if not re.search(r"\d", expression) or not set(words) <= SUM_WORDS:
        return None
    return expression if re.search(r"\d\s*[-+*/%^×÷]|\(", expression) else None


def _name_of(messages: Sequence[Said]) -> str:
    """Which tool the last result is from."""
    wanted = messages[-1].tool_call_id
    return next(call.name for said in reversed(messages) for call in said.tool_calls if call.id == wanted)
