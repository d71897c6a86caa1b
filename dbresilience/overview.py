"""Everything that is known of one database on this machine at one moment, as what JSON can hold.

The dashboard, `status --json` and `watch --json` give the same object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .headline import Headline, headline
from .history_file import COUNTERS, DURATIONS, GAUGES
from .intervals import Interval
from .processes import Machine, Process, look
from .resources import DatabaseResources
from .server_sessions import ServerSessions, ask_server
from .snapshot import PoolSnapshot

SAME_SECONDS = 3.0
"""What happens to several processes within this time is one event."""
MOST_EVENTS = 60
MOST_SLOW_QUERIES = 20
MOST_ENDED = 20


@dataclass(frozen=True, slots=True)
class Overview:
    """One database on this machine at one moment."""

    alias: str
    machine: Machine
    server: ServerSessions
    headline: Headline

    def facts(self) -> dict[str, Any]:
        """Return it for programs: numbers, seconds, moments by `time.time`; nothing names a host, and statements
        and paths are without their values (`masking`)."""
        machine = self.machine
        ended = [process for process in machine.processes if not process.is_there]
        ended.sort(key=lambda process: process.ended_at or 0, reverse=True)
        return {
            "at": machine.now,
            "database": self.alias,
            "headline": asdict(self.headline),
            "together": {"pool": _pool(machine.pool), "minute": _interval(machine.minute)},
            "processes": [_process(process, machine.now) for process in [*machine.there, *ended[:MOST_ENDED]]],
            "server": {
                "state": self.server.state,
                "sessions": self.server.sessions,
                **asdict(self.server.slots),
                "left": self.server.slots.left,
                "groups": [asdict(group) for group in self.server.groups],
            },
            "events": events(machine)[:MOST_EVENTS],
            "slow_queries": slow_queries(machine)[:MOST_SLOW_QUERIES],
        }


def overview(resources: DatabaseResources, *, server_timeout_seconds: float = 0.8) -> Overview:
    """Look at all processes of this machine, and ask the server, for no longer than `server_timeout_seconds`.

    Raises:
        OrdersUnusable: the folder of the histories cannot be trusted or made.
    """
    server = ask_server(resources, timeout_seconds=server_timeout_seconds)
    machine = look(resources.orders, resources.alias)
    return Overview(resources.alias, machine, server, headline(machine, server))


def events(machine: Machine) -> list[dict[str, Any]]:
    """Return what happened within the last hour, the newest first; `pids` are the processes that it happened to."""
    found = []
    for process in machine.processes:
        about = process.about
        found += [{**event, "pids": [about.pid]} for event in process.file.events]
        found.append({"at": about.started_at, "event": "process_began", "text": f"{about.what} began"})
        if process.ended_at is not None:
            how = "ended" if process.state == "ended" else "ended without a word"
            found.append({"at": process.ended_at, "event": f"process_{process.state}", "text": f"{about.what} {how}"})
        for event in found[-2:]:
            event.setdefault("pids", [about.pid])
    merged: list[dict[str, Any]] = []
    newest: dict[tuple[str, str], dict[str, Any]] = {}
    for event in sorted(found, key=lambda event: event["at"]):
        # Of two processes one may have counted a tenth of a second more.
        key = event["event"], "" if event["event"].startswith("breaker") else event["text"]
        before = newest.get(key)
        if before is not None and event["at"] - before["at"] <= SAME_SECONDS:
            before["pids"] = sorted({*before["pids"], *event["pids"]})
            continue
        newest[key] = event
        merged.append(event)
    return [event for event in reversed(merged) if machine.now - event["at"] <= 3600]


def slow_queries(machine: Machine) -> list[dict[str, Any]]:
    """Return the slow statements of the last hour that are still known, one entry for each place, the newest first."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    every = [query for process in machine.processes for query in process.file.slow_queries]
    for query in sorted(every, key=lambda query: query["at"]):
        if machine.now - query["at"] > 3600:
            continue
        before = found.pop((query["call_site"], query["sql"]), {"count": 0, "seconds": 0.0})
        found[query["call_site"], query["sql"]] = {
            **query,
            "count": before["count"] + 1,
            "seconds": max(before["seconds"], query["seconds"]),
        }
    return list(reversed(found.values()))


def _process(process: Process, now: float) -> dict[str, Any]:
    about = process.about
    return {
        "id": process.id,
        "pid": about.pid,
        "what": about.what,
        "state": process.state,
        "age_seconds": round((process.ended_at or now) - about.started_at, 1),
        "ended_at": process.ended_at,
        "pool": _pool(process.pool),
        "minute": _interval(process.minute),
    }


def _pool(pool: PoolSnapshot) -> dict[str, Any]:
    return {name: getattr(pool, name) for name in GAUGES}


def _interval(interval: Interval) -> dict[str, Any]:
    return {
        **dict(zip(COUNTERS, interval.counters, strict=True)),
        **{f"{duration}_seconds": asdict(interval.percentiles(duration)) for duration in DURATIONS},
    }
