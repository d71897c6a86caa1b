"""What the panel of the debug toolbar shows, in plain values: the toolbar keeps them as JSON."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from dbresilience.measures import BATCH, CLOSE, LOST, PINNED, REQUEST, RETRY, STATEMENT, THREAD_ENDED, TRANSACTION
from dbresilience.slow_queries import SlowQuery
from dbresilience.watching import HELD, Watch, WatchedLease

WORTH_A_HINT_SECONDS = 0.01
"""From here on it is told what to do about a connection that is held and not used."""

ENDINGS = {
    HELD: "not given back yet",
    STATEMENT: "given back after its statement",
    TRANSACTION: "given back after its transaction",
    BATCH: "given back after gather()",
    PINNED: "given back after pinned()",
    REQUEST: "given back at the end of the request",
    CLOSE: "given back by close()",
    RETRY: "given back before another attempt",
    THREAD_ENDED: "taken back, since its thread had ended",
    LOST: "given up, since it was lost",
}
HINTS = {
    STATEMENT: "A cursor keeps its connection until it is closed; iterator() does so until its last row is read.",
    TRANSACTION: "Do what is slow before the transaction, or in transaction.on_commit().",
    PINNED: "Keep the pinned() block small.",
}
HINT_FOR_OTHERS = "An open cursor, a transaction or something left on the session keeps it that long."


class RequestWatch(Watch):
    """What is put down of a request, with what happened to it."""

    def __init__(self) -> None:
        super().__init__()
        self.began_at = perf_counter()
        self.events: list[str] = []
        self.retries = 0
        self.slow_queries: list[SlowQuery] = []


def stats_of(watch: RequestWatch) -> dict[str, Any]:
    """Return what is known of a request until now."""
    leases = list(watch.leases)
    ended_at = max((lease.acquired_at + lease.held_seconds for lease in leases), default=watch.began_at)
    seconds = ended_at - watch.began_at
    longest = max(leases, key=lambda lease: lease.longest_idle.seconds, default=None)
    return {
        "leases": [_lease(lease, watch, seconds) for lease in leases],
        "round_trips": sum(lease.round_trips for lease in leases),
        "statements": sum(len(lease.statements) for lease in leases),
        "wait_ms": 1000 * sum(lease.wait_seconds for lease in leases),
        "held_ms": 1000 * sum(lease.held_seconds for lease in leases),
        "idle_ms": 1000 * sum(lease.held_seconds - lease.busy_seconds for lease in leases),
        "longest_idle": None if longest is None else _idle(longest, leases.index(longest) + 1),
        "retries": watch.retries,
        "events": list(watch.events),
        "slow_queries": [
            {"sql": query.sql, "ms": 1000 * query.duration_seconds, "rows": query.rows, "call_site": query.call_site}
            for query in watch.slow_queries
        ],
    }


def _lease(lease: WatchedLease, watch: RequestWatch, seconds: float) -> dict[str, Any]:
    def place(began: float, ended: float) -> dict[str, float]:
        return {"x": 100 * (began - watch.began_at) / seconds, "width": 100 * (ended - began) / seconds}

    return {
        "alias": lease.alias,
        "call_site": lease.call_site,
        "wait_ms": 1000 * lease.wait_seconds,
        "held_ms": 1000 * lease.held_seconds,
        "idle_ms": 1000 * (lease.held_seconds - lease.busy_seconds),
        "round_trips": lease.round_trips,
        "ended": ENDINGS[lease.ended],
        "is_lost": lease.ended == LOST,
        "place": place(lease.acquired_at, lease.acquired_at + lease.held_seconds),
        "moments": [place(moment.began, moment.ended) for moment in list(lease.moments)],
        "statements": [
            {
                "sql": statement.sql,
                "ms": 1000 * statement.seconds,
                "call_site": statement.call_site,
                "error": statement.error,
                "is_slow": statement.is_slow,
                "round_trip": statement.round_trip,
            }
            for statement in list(lease.statements)
        ],
    }


def _idle(lease: WatchedLease, number: int) -> dict[str, Any]:
    idle = lease.longest_idle
    return {
        "ms": 1000 * idle.seconds,
        "lease": number,
        "after": idle.after,
        "before": idle.before,
        "hint": HINTS.get(lease.ended, HINT_FOR_OTHERS) if idle.seconds >= WORTH_A_HINT_SECONDS else None,
    }
