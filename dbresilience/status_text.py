"""The state of one database on this machine as lines for a terminal of any width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .headline import seconds_text
from .plurals import number_of

_MARKS = {"critical": "!!", "warning": " !", "well": "ok"}
_COLOURS = {"critical": "\x1b[1;97;41m", "warning": "\x1b[1;30;43m", "well": "\x1b[1;32m"}
_PLAIN = "\x1b[0m"

_COLUMNS = ("pid", "process", "age", "in use", "idle", "wait", "max", "breaker", "p95 wait", "hold", "query")
_TEXT_COLUMNS = {"process", "breaker"}
_LESS_IMPORTANT = ("age", "hold", "idle", "query", "p95 wait")
"""Left out, in this order, where the terminal is narrow."""


def status_lines(facts: dict[str, Any], *, width: int = 120, colours: bool = False) -> list[str]:
    """Return the lines.

    Args:
        facts: of an `overview.Overview`.
        width: none is longer.
        colours: whether the terminal shows them.
    """
    lines = [*_headline(facts["headline"], width, colours=colours), ""]
    there = [process for process in facts["processes"] if process["state"] in ("alive", "silent")]
    rows = [_row(str(each["pid"]), _name(each), _age(each["age_seconds"]), each) for each in there]
    if len(there) != 1:
        rows.append(_row("", f"{len(there)} together", "", facts["together"]))
    lines += _table(rows, width)
    lines += ["", *_wrapped(_outcomes(facts["together"]["minute"]), width), *_wrapped(_server(facts), width)]
    return lines


def event_lines(facts: dict[str, Any], *, width: int, most: int) -> list[str]:
    """Return the newest events, for a view that has room for them."""
    now = facts["at"]
    lines = []
    for event in facts["events"][:most]:
        who = f" ({len(event['pids'])} processes)" if len(event["pids"]) > 1 else ""
        lines.append(_cut(f"{_age(now - event['at']):>6} ago  {event['text']}{who}", width))
    return lines


def _headline(headline: dict[str, Any], width: int, *, colours: bool) -> list[str]:
    lines = _wrapped(f"{_MARKS[headline['level']]}  {headline['text']}", width)
    if not colours:
        return lines
    return [f"{_COLOURS[headline['level']]}{line}{_PLAIN}" for line in lines]


def _row(pid: str, name: str, age: str, about: dict[str, Any]) -> list[str]:
    pool, minute = about["pool"], about["minute"]
    p95 = [seconds_text(minute[f"{duration}_seconds"]["p95"]) for duration in ("wait", "hold", "query")]
    numbers = [str(pool[name]) for name in ("in_use", "idle", "waiting", "max_size")]
    return [pid, name, age, *numbers, pool["breaker"], *p95]


def _name(process: dict[str, Any]) -> str:
    return process["what"] if process["state"] == "alive" else f"{process['what']} (silent)"


def _table(rows: Sequence[Sequence[str]], width: int) -> list[str]:
    shown = list(range(len(_COLUMNS)))
    for name in ("", *_LESS_IMPORTANT):
        shown = [column for column in shown if _COLUMNS[column] != name]
        widths = {column: max(len(row[column]) for row in [_COLUMNS, *rows]) for column in shown}
        if sum(widths.values()) + 2 * (len(shown) - 1) <= width:
            break
    lines = []
    for row in [_COLUMNS, *rows]:
        cells = [
            row[column].ljust(widths[column])
            if _COLUMNS[column] in _TEXT_COLUMNS
            else row[column].rjust(widths[column])
            for column in shown
        ]
        lines.append(_cut("  ".join(cells).rstrip(), width))
    return lines


def _outcomes(minute: dict[str, Any]) -> str:
    count = minute["query_seconds"]["count"]
    parts = [number_of(count, "statement"), f"{minute['failed_total']} failed"]
    named = (
        ("refused_total", "requests refused"),
        ("too_slow_total", "too slow"),
        ("timed_out_total", "timed out waiting"),
        ("repeated_total", "repeated"),
        ("slow_queries_total", "slow"),
    )
    parts += [f"{minute[name]} {text}" for name, text in named if minute[name]]
    return f"Last minute: {', '.join(parts)}."


def _server(facts: dict[str, Any]) -> str:
    server, may_open = facts["server"], facts["together"]["pool"]["max_size"]
    if server["state"] != "ok":
        return f"Server: does not answer ({server['state']}). The pools here may open {may_open} connections."
    available = server["max_connections"] - server["reserved"]
    return (
        f"Server: {server['sessions']} of {available} sessions. "
        f"The pools here may open {may_open} connections of {server['left']} for this user and database."
    )


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: width - 1]}…"


def _wrapped(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return [_cut(line, width) for line in lines]
