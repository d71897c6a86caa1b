"""The worst thing about the database in one sentence, for whoever has five seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from . import looking_again
from .exit_codes import AWAY, NOT_WELL, WELL
from .plurals import number_of
from .processes import Machine, Process
from .server_sessions import ServerSessions

RECENT_SECONDS = 5.0
BACK_SECONDS = 60.0
"""How long an outage that is over stays in the headline."""


@dataclass(frozen=True, slots=True)
class Headline:
    """What to look at first.

    Attributes:
        level: ``critical``, ``warning`` or ``well``.
        text: one or two sentences.
        code: one of `exit_codes`; not well is a full pool or server, refusing, paused, or a silent process.
    """

    level: str
    text: str
    code: int = WELL


def headline(machine: Machine, server: ServerSessions | None = None) -> Headline:
    """Return the worst thing.

    Args:
        machine: the processes.
        server: what the server says of itself, if it was asked.
    """
    for find in _FROM_WORST:
        found = find(machine, server)
        if found is not None:
            return found
    return _well(machine)


def _away(machine: Machine, server: ServerSessions | None) -> Headline | None:
    those = [] if _answers_again(machine, server) else _finding_it_away(machine)
    since = min((process.trouble_since or machine.now for process in those), default=None)
    if since is not None:
        # The refusals of the second in which it went away belong to it.
        refused = machine.since(since - 1.5).count("refused_total")
        where = "" if len(those) == len(machine.there) else f" from {len(those)} of {_processes(len(machine.there))}"
        text = f"The database has been away{where} for {_age(machine.now - since)}: {_requests(refused)} refused."
        return Headline("critical", text, AWAY)
    if server is not None and server.is_away and server.state not in ("server_full", "pooler_full"):
        if (
            server.state == "timeout"
            and machine.minute.count_of("query")
            and not machine.since(machine.now - RECENT_SECONDS).count("refused_total")
        ):
            return None  # those who ask it get answers; it is only slow
        return Headline("critical", f"The database does not answer ({server.state}).", AWAY)
    return None


def _not_asked_since(machine: Machine, server: ServerSessions | None) -> Headline | None:
    those = _finding_it_away(machine)
    if not those:
        return None
    asked = f"{_processes(len(those))} {'has' if len(those) == 1 else 'have'}"
    return Headline(
        "warning", f"The database is back, but {asked} not asked it since: the next request there connects."
    )


def _finding_it_away(machine: Machine) -> list[Process]:
    return [process for process in machine.there if process.pool.breaker == "open"]


def _answers_again(machine: Machine, server: ServerSessions | None) -> bool:
    """Whether it is there, and those who found it away have merely not asked it since."""
    if server is None or server.state != "ok":
        return False
    # Twice as long as an idle process waits before it looks again by itself.
    since = machine.now - 2 * looking_again.EVERY_SECONDS
    recent = [process.since(since) for process in _finding_it_away(machine)]
    return not any(each.count("refused_total") or each.count("connect_failures_total") for each in recent)


def _paused(machine: Machine, server: ServerSessions | None) -> Headline | None:
    those = [process for process in machine.there if process.pool.breaker == "paused"]
    if not those:
        return None
    since = machine.now - min(process.trouble_since or machine.now for process in those)
    return Headline(
        "warning", f"Paused by an operator for {_age(since)} now: {_requests(machine.pool.waiting)} waiting.", NOT_WELL
    )


def _server_full(machine: Machine, server: ServerSessions | None) -> Headline | None:
    refused = machine.since(machine.now - 10).count("server_full_total")
    if not refused and (server is None or server.state not in ("server_full", "pooler_full")):
        return None
    return Headline("critical", "The server is full: it takes no more connections.", NOT_WELL)


def _pool_full(machine: Machine, server: ServerSessions | None) -> Headline | None:
    full = [process for process in machine.there if _is_full(process)]
    waiting = sum(process.pool.waiting for process in full)
    timed_out = machine.since(machine.now - 10).count("timed_out_total")
    if not waiting and not timed_out:
        return None
    p99 = machine.minute.percentiles("wait").p99
    slow = "" if p99 is None else f", p99 of the wait {seconds_text(p99)}"
    if waiting:
        where = "Pool full" if len(machine.there) == 1 else f"{len(full)} of {len(machine.there)} pools full"
        gave_up = f", {timed_out} gave up" if timed_out else ""
        return Headline("critical", f"{where}: {_requests(waiting)} waiting{slow}{gave_up}.", NOT_WELL)
    return Headline("warning", f"Pools were full: {_requests(timed_out)} gave up waiting{slow}.", NOT_WELL)


def _refusing(machine: Machine, server: ServerSessions | None) -> Headline | None:
    recent, minute = machine.since(machine.now - RECENT_SECONDS), machine.minute
    refused, slow = recent.count("refused_total"), recent.count("too_slow_total")
    if refused or slow:
        return Headline("critical", f"{_requests(refused + slow)} refused in the last 5 s.", NOT_WELL)
    refused = minute.count("refused_total") + minute.count("too_slow_total")
    if not refused:
        return None
    back = max((event["at"] for process in machine.processes for event in process.file.events
                if event["event"] == "breaker_closed"), default=0.0)  # fmt: skip
    ago = machine.now - back
    if 0 <= ago <= BACK_SECONDS:
        return Headline("warning", f"The database came back {_age(ago)} ago: {_requests(refused)} refused before.")
    return Headline("warning", f"{_requests(refused)} refused in the last minute.")


def _silent(machine: Machine, server: ServerSessions | None) -> Headline | None:
    those = [process for process in machine.there if process.state == "silent"]
    if not those:
        return None
    named = ", ".join(f"{process.about.what} ({process.about.pid})" for process in those[:3])
    return Headline("warning", f"Not heard of for a while: {named}.", NOT_WELL)


def _too_many(machine: Machine, server: ServerSessions | None) -> Headline | None:
    if server is None or server.is_away or machine.pool.max_size <= server.slots.left:
        return None
    return Headline(
        "warning",
        f"The pools of this machine may open {machine.pool.max_size} connections to this database as this user; "
        f"the server has {server.slots.left} for them ({server.slots}). Lower max_size, or raise the limit.",
    )


def _killed(machine: Machine, server: ServerSessions | None) -> Headline | None:
    killed = [each for each in machine.processes if each.state == "killed"]
    those = [each for each in killed if machine.now - (each.ended_at or 0) <= BACK_SECONDS]
    if not those:
        return None
    named = ", ".join(f"{process.about.what} ({process.about.pid})" for process in those[:3])
    return Headline("warning", f"Ended without a word in the last minute: {named}.")


def _slow(machine: Machine, server: ServerSessions | None) -> Headline | None:
    recent = [
        query for process in machine.processes for query in process.file.slow_queries
        if machine.now - query["at"] <= BACK_SECONDS
    ]  # fmt: skip
    if not recent:
        return None
    worst = max(recent, key=lambda query: query["seconds"])
    count = machine.minute.count("slow_queries_total")
    return Headline(
        "warning",
        f"{number_of(count, 'slow query', 'slow queries')} in the last minute, "
        f"the slowest {seconds_text(worst['seconds'])} at {worst['call_site']}.",
    )


_FROM_WORST: tuple[Callable[[Machine, ServerSessions | None], Headline | None], ...] = (
    _away,
    _server_full,
    _pool_full,
    _paused,
    _refusing,
    _silent,
    _not_asked_since,
    _too_many,
    _killed,
    _slow,
)


def _well(machine: Machine) -> Headline:
    pool = machine.pool
    if not machine.there:
        return Headline("well", "No process of this machine uses the database at the moment.")
    text = f"All is well: {_processes(len(machine.there))}, {pool.in_use} of {pool.max_size} connections in use."
    return Headline("well", text)


def _is_full(process: Process) -> bool:
    return process.pool.waiting > 0 and process.pool.in_use >= process.pool.max_size


def _age(seconds: float) -> str:
    return f"{max(seconds, 0):.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def seconds_text(seconds: float | None) -> str:
    """Write a duration with the unit that suits it, as ``1.2 s`` or ``35 ms``."""
    if seconds is None:
        return "–"
    if seconds >= 0.9995:
        return f"{seconds:.1f} s"
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.0095 else f"{seconds * 1000:.2g} ms"


def _requests(count: int) -> str:
    return number_of(count, "request")


def _processes(count: int) -> str:
    return number_of(count, "process", "processes")
