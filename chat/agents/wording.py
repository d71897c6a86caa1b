"""What the offline assistant says, in Markdown."""

from __future__ import annotations

import json
import re
from typing import Any

ABILITIES = """\
- **Search your messages**: *search for invoices*, or *what did I say about Lisbon?*
- **Calculate**: *2\\*(3+4)*, or *what is sqrt(2) \\* 100?*
- **Tell the time**: *what time is it?*, or *what time is it in Asia/Tokyo?*
- **Look after the database**: *is the database ok?*
- **Show what I can write**: *show me some Markdown*"""

POOL_WORDS = {"in_use": "In use", "idle": "Idle", "max_size": "At most", "waiting": "Requests that wait"}

_MARKUP = re.compile(r"([\\`*_{}\[\]<>#|~])")
_LINE_MARKUP = re.compile(r"^[ \t]*(?:#{1,6}|>|[-*+])[ \t]+", re.MULTILINE)
# In pairs, and around words: 2*3*4 and (1+2)*(3)*(4) are sums.
_INLINE_MARKUP = re.compile(
    r"(?P<ticks>`+)(?P<code>[^`]+)(?P=ticks)"
    r"|(?<![\w)\]*])(?P<marks>\*{1,3}|_{1,3})(?=[^\s*_])(?P<text>.+?)(?<=\S)(?P=marks)(?![\w(\[*])"
)


def plain(text: str) -> str:
    """What somebody wrote, so that none of it is taken for Markdown of ours."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))


def without_markup(text: str) -> str:
    """Markdown as plain words; a star that marks nothing stays."""

    def inner(found: re.Match[str]) -> str:
        return found["code"] or without(found["text"])

    def without(text: str) -> str:
        return _INLINE_MARKUP.sub(inner, text)

    return without(_LINE_MARKUP.sub("", text))


def help_text() -> str:
    return (
        "I am the offline assistant: no model and no network, so I always give the same answer. I can:\n\n"
        f"{ABILITIES}\n\n"
        "For real conversations, set `CHAT_AGENT=openai` and point `OPENAI_BASE_URL` at a model."
    )


def greeting() -> str:
    return f"Hello! I am the offline assistant. Try one of these:\n\n{ABILITIES}"


def not_understood(text: str) -> str:
    quoted = text if len(text) <= 200 else text[:199].rstrip() + "…"
    return (
        f"You said:\n\n> {plain(quoted)}\n\n"
        "I have stored that, and you can search for it later. Without a model I understand only plain requests:\n\n"
        f"{ABILITIES}"
    )


def markdown_sample() -> str:
    return (
        "## What an answer can hold\n\n"
        "Text may be **strong**, *emphasised* or `code`, and it may [link](https://www.postgresql.org/docs/).\n\n"
        "1. Lists with numbers\n2. and with bullets:\n   - one\n   - two\n\n"
        "| Part | Does |\n|---|---|\n| pool | keeps connections ready |\n| lease | lends one for a transaction |\n\n"
        "```python\nfrom django.db import transaction\n\nwith transaction.atomic():\n    thread.save()\n```\n\n"
        "> A quotation, for good measure.\n"
    )


def result_text(tool: str, content: str) -> str:
    """A tool's result in words."""
    try:
        result: Any = json.loads(content)
    except ValueError:
        result = content
    if isinstance(result, dict) and "error" in result:
        # Told without the name of the argument, which is the model's business.
        return f"That did not work: {re.sub(r'^[a-z]+: ', '', result['error'])}"
    if tool in WORDINGS and isinstance(result, dict):
        return WORDINGS[tool](result)
    return f"```json\n{content}\n```"


def _search(result: dict[str, Any]) -> str:
    hits = result["messages"]
    if not hits:
        return f"I found nothing about **{plain(result['query'])}** in your messages."
    count = f"{len(hits)} message" + ("s" if len(hits) != 1 else "")
    lines = [f"I found {count} about **{plain(result['query'])}**, newest first:\n"]
    for hit in hits:
        who = "you" if hit["role"] == "user" else "I"
        title, snippet = plain(hit["thread"]["title"]), plain(hit["snippet"])
        lines.append(f"- In *{title}* ({hit['said_at'][:10]}) {who} said: {snippet}")
    return "\n".join(lines)


def _calculate(result: dict[str, Any]) -> str:
    return f"`{result['expression']}` = **{result['value']}**"


def _time(result: dict[str, Any]) -> str:
    return f"It is **{result['time']}** on {result['weekday']}, {result['date']} ({result['timezone']})."


def _database(result: dict[str, Any]) -> str:
    state = "answers" if result["healthy"] else "**does not answer**"
    text = f"The database {state}"
    if result.get("latency_ms") is not None:
        text += f" in **{result['latency_ms']} ms**"
    pool = result.get("pool")
    if not pool:
        return text + "."
    rows = "\n".join(f"| {words} | {pool[name]} |" for name, words in POOL_WORDS.items())
    return f"{text}. The connections of this process:\n\n| | |\n|---|--:|\n{rows}"


WORDINGS = {
    "search_my_messages": _search,
    "calculate": _calculate,
    "current_time": _time,
    "database_status": _database,
}
