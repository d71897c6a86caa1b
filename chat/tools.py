"""The tools an assistant may use: what it is told about each, and what each does."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from chat import queries
from chat.agents.base import ToolDescription
from chat.arithmetic import calculate
from chat.limits import TOOL_RESULT_CHARACTERS
from chat.models import ToolCall
from chat.outages import note
from dbresilience import get_database_resources

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ToolContext:
    """On whose behalf a tool works, and before which message: a question must not find itself."""

    owner_id: Any
    before: UUID


def run(name: str, arguments: Mapping[str, Any], context: ToolContext) -> tuple[str, Any]:
    """The status and the result; a tool that fails tells the assistant so and never ends the turn."""
    tool = TOOLS.get(name)
    if tool is None:
        return ToolCall.Status.FAILED, {"error": f"There is no tool named {name!r}; there are {', '.join(TOOLS)}."}
    try:
        result = tool.work(context, arguments)
        if len(json.dumps(result)) > TOOL_RESULT_CHARACTERS:
            return ToolCall.Status.FAILED, {"error": "The result is too long; ask for less."}
    except (DatabaseError, InterfaceError) as error:
        note(logger, error, f"The tool {name} failed at the database")
        return ToolCall.Status.FAILED, {"error": "The database does not answer just now; try again in a moment."}
    except (ValueError, TypeError, KeyError, OSError) as error:
        return ToolCall.Status.FAILED, {"error": str(error) or type(error).__name__}
    return ToolCall.Status.COMPLETE, result


def asks_database(name: str) -> bool:
    return name in TOOLS and TOOLS[name].asks_database


def _text(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name)
    if not isinstance(value, str) or not value.strip() or "\x00" in value:
        raise ValueError(f"{name}: give some text.")
    return value.strip()


def _search_my_messages(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
    query = _text(arguments, "query")[:200]
    found = queries.search_messages(owner_id=context.owner_id, text=query, before=context.before)
    return {"query": query, "messages": found}


def _calculate(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
    expression = _text(arguments, "expression")
    return {"expression": expression, "value": calculate(expression)}


def _current_time(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
    name = arguments.get("timezone") or "UTC"
    try:
        zone = ZoneInfo(str(name))
    except (ValueError, OSError, KeyError) as error:
        raise ValueError(f"timezone: {name!r} is unknown; use a name such as Europe/Berlin.") from error
    now: datetime = timezone.now().astimezone(zone)
    return {
        "time": now.strftime("%H:%M:%S"),
        "date": now.strftime("%Y-%m-%d"),
        "weekday": now.strftime("%A"),
        "timezone": str(name),
    }


def _database_status(context: ToolContext, arguments: Mapping[str, Any]) -> Any:
    try:
        resources = get_database_resources()
    except TypeError:
        # The site went back to Django's own backend, which has nothing to tell of its connections.
        started = time.perf_counter()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        return {"healthy": True, "latency_ms": round((time.perf_counter() - started) * 1000, 1)}
    health, pool = resources.health(), resources.snapshot()
    return {
        "healthy": health.healthy,
        "latency_ms": None if health.latency_ms is None else round(health.latency_ms, 1),
        "pool": {name: getattr(pool, name) for name in ("size", "idle", "in_use", "waiting", "max_size")},
    }


def _one_string(name: str, description: str, *, required: bool = True) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "description": description}},
        "required": [name] if required else [],
        "additionalProperties": False,
    }


@dataclass(frozen=True, kw_only=True)
class Tool(ToolDescription):
    """`asks_database`: its work is a round trip already, and soon done."""

    work: Callable[[ToolContext, Mapping[str, Any]], Any]
    asks_database: bool = False


DESCRIPTIONS: Sequence[Tool] = (
    Tool(
        name="search_my_messages",
        description="Full-text search over everything the user and the assistant said in all of the user's threads.",
        parameters=_one_string("query", "Words to look for; quotes for a phrase, a minus to exclude a word."),
        work=_search_my_messages,
        asks_database=True,
    ),
    Tool(
        name="calculate",
        description="Work out an arithmetic expression exactly.",
        parameters=_one_string("expression", "For example 2*(3+4) or sqrt(2)."),
        work=_calculate,
    ),
    Tool(
        name="current_time",
        description="The current date and time.",
        parameters=_one_string("timezone", "An IANA name such as Europe/Berlin; UTC if absent.", required=False),
        work=_current_time,
    ),
    Tool(
        name="database_status",
        description="Whether this application's database answers, how fast, and how busy the connection pool is.",
        work=_database_status,
        asks_database=True,
    ),
)
TOOLS = {tool.name: tool for tool in DESCRIPTIONS}
