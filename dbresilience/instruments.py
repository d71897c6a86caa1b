"""Every instrument once: name, kind, unit and meaning, for Prometheus, OpenTelemetry and the reference page.

Names and units of those that begin with ``db.`` are OpenTelemetry's semantic conventions for database clients. In
Prometheus a dot is an underscore, and the unit and ``_total`` are added.
"""

from __future__ import annotations

from dataclasses import dataclass

from .measures import BATCH, CLOSE, LOST, PINNED, REQUEST, RETRY, STATEMENT, THREAD_ENDED, TRANSACTION

COUNTER = "counter"
GAUGE = "gauge"
MOMENT = "moment"
"""A gauge that is a point in time: the latest of all processes counts, not their sum."""
HISTOGRAM = "histogram"

BUCKETS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
)  # fmt: skip
"""Upper bounds in seconds: the conventions' own, and finer ones, since a query takes less than a millisecond."""

LABELS = {
    "pool": ("db.client.connection.pool.name", "the alias"),
    "state": ("db.client.connection.state", "`idle` or `used`"),
    "operation": ("db.operation.name", "the statement's first word, or `OTHER`"),
    "error": ("error.type", "SQLSTATE or class of its error, empty if it had none"),
    "route": ("http.route", "the pattern in the URLconf, or `unresolved`"),
    "status": ("http.response.status_code", "503 or 504"),
    "breaker": ("dbresilience.breaker", "`closed`, `open` (the database is away) or `paused`"),
    "cause": ("dbresilience.cause", "the class of the error, as in the [reference](errors.md)"),
    "kind": ("dbresilience.kind", "what ran out, or what was repeated"),
    "outcome": ("dbresilience.outcome", "what came of it"),
    "reason": ("dbresilience.reason", "why"),
}
"""What each label is called in OpenTelemetry, and what it says."""

LEASE_ENDS = {
    STATEMENT: "its last cursor was closed, outside a transaction",
    TRANSACTION: "its transaction ended",
    BATCH: "a `gather()` had its answers",
    PINNED: "the `pinned()` block ended",
    REQUEST: "the request ended, and something was left open or on the session until then",
    CLOSE: "`connection.close()`, or `close_pool()`",
    RETRY: "`retry` waits before another attempt",
    LOST: "the connection was lost, or could not be used again",
    THREAD_ENDED: "its thread had ended without giving it back",
}
"""What each reason of a lease's end means."""

SYSTEM = ("db.system.name", "postgresql")
"""An attribute that OpenTelemetry wants with each operation's duration."""


@dataclass(frozen=True, eq=False)
class Instrument:
    """One thing that is counted or measured.

    Attributes:
        name: in OpenTelemetry.
        kind: `COUNTER`, `GAUGE`, `MOMENT` or `HISTOGRAM`.
        unit: in OpenTelemetry's notation; ``s`` is seconds.
        meaning: one sentence without its full stop.
        labels: names of `LABELS`, each with all its values if they are few and known: those begin at 0.
    """

    name: str
    kind: str
    unit: str
    meaning: str
    labels: dict[str, tuple[str, ...]]

    @property
    def prometheus_name(self) -> str:
        """Its name in Prometheus."""
        name = self.name.replace(".", "_")
        ending = {COUNTER: "_total", HISTOGRAM: "_seconds", MOMENT: "_seconds"}.get(self.kind, "")
        return name + ending


def _of_pool(name: str, kind: str, unit: str, meaning: str, /, **labels: tuple[str, ...]) -> Instrument:
    return Instrument(name, kind, unit, meaning, {"pool": (), **labels})


COUNT = _of_pool(
    "db.client.connection.count", GAUGE, "{connection}", "Connections, by what they do", state=("idle", "used")
)
IDLE_MAX = _of_pool("db.client.connection.idle.max", GAUGE, "{connection}", "Most idle connections: `max_size`")
IDLE_MIN = _of_pool(
    "db.client.connection.idle.min", GAUGE, "{connection}", "Connections kept open while nothing is asked: `min_size`"
)
MAX = _of_pool("db.client.connection.max", GAUGE, "{connection}", "Most connections: `max_size`")
PENDING_REQUESTS = _of_pool(
    "db.client.connection.pending_requests", GAUGE, "{request}", "Requests that wait for a connection"
)
TIMEOUTS = _of_pool(
    "db.client.connection.timeouts", COUNTER, "{timeout}", "Requests for a connection that had none in time"
)
CREATE_TIME = _of_pool("db.client.connection.create_time", HISTOGRAM, "s", "Time to open a connection")
WAIT_TIME = _of_pool("db.client.connection.wait_time", HISTOGRAM, "s", "Time from asking for a connection to having it")
USE_TIME = _of_pool("db.client.connection.use_time", HISTOGRAM, "s", "Time from having a connection to giving it back")
DURATION = _of_pool(
    "db.client.operation.duration", HISTOGRAM, "s", "Time of a statement, without the wait for its connection",
    operation=(), error=(),
)  # fmt: skip

LEASES = _of_pool(
    "dbresilience.leases", COUNTER, "{lease}", "Leases that ended, by what ended them", reason=tuple(LEASE_ENDS)
)
REFUSALS = _of_pool(
    "dbresilience.refusals", COUNTER, "{refusal}", "Requests for a connection that were refused, by cause", cause=()
)
EXHAUSTIONS = _of_pool(
    "dbresilience.exhaustions", COUNTER, "{event}",
    "How often connections ran out: nobody gave one back in time (`timed_out`), `max_waiting` waited already "
    "(`too_many_waiting`), or the server had no slot (`server_full`)",
    kind=("timed_out", "too_many_waiting", "server_full"),
)  # fmt: skip
CONNECT_FAILURES = _of_pool("dbresilience.connect.failures", COUNTER, "{failure}", "Attempts to connect that failed")
CLOSED = _of_pool(
    "dbresilience.connections.closed", COUNTER, "{connection}",
    "Connections that were closed or found dead, by reason; `max_lifetime` are those refreshed for their age",
    reason=("max_lifetime",),
)  # fmt: skip
CONDEMNED = _of_pool(
    "dbresilience.generations.condemned", COUNTER, "{generation}",
    "How often all connections were given up after one proof of death, by reason",
    reason=(),
)  # fmt: skip
BREAKER = _of_pool(
    "dbresilience.breaker.processes", GAUGE, "{process}", "Processes by the state of their breaker",
    breaker=("closed", "open", "paused"),
)  # fmt: skip
BREAKER_CHANGES = _of_pool(
    "dbresilience.breaker.changes", COUNTER, "{change}", "Changes of the breaker, by the state that it came into",
    breaker=("closed", "open", "paused"),
)  # fmt: skip
RETRIES = _of_pool(
    "dbresilience.retries", COUNTER, "{attempt}",
    "Failed attempts of a `unit` marked by `retry`, or of a `read`, that ran `again`; units that `succeeded` after "
    "such a failure; units that were `given_up`",
    kind=(), outcome=(),
)  # fmt: skip
COMMITS_LOOKED_UP = _of_pool(
    "dbresilience.commits.looked_up", COUNTER, "{transaction}", "COMMITs whose outcome was looked up",
    outcome=("committed", "not committed", "unknown"),
)  # fmt: skip
OVERDUE = _of_pool(
    "dbresilience.statements.overdue", COUNTER, "{statement}", "Statements that were cancelled at their deadline"
)
SLOW_QUERIES = _of_pool(
    "dbresilience.slow_queries", COUNTER, "{statement}", "Statements that took `slow_query_seconds` or more"
)
WARM_UP = _of_pool("dbresilience.warm_up", HISTOGRAM, "s", "Time to warm a pool up, by outcome", outcome=())
LAST_SUCCESS = _of_pool(
    "dbresilience.last_success.timestamp", MOMENT, "s", "When a statement was last answered, as Unix time"
)
LAST_FAILURE = _of_pool(
    "dbresilience.last_failure.timestamp", MOMENT, "s",
    "When a connection was last refused or could not be opened, as Unix time",
)  # fmt: skip
REQUESTS_REFUSED = Instrument(
    "dbresilience.requests.refused", COUNTER, "{request}",
    "Requests that were answered 503 or 504 because of the database, by route",
    {"route": (), "status": (), "cause": ()},
)  # fmt: skip

INSTRUMENTS = (
    COUNT, IDLE_MAX, IDLE_MIN, MAX, PENDING_REQUESTS, TIMEOUTS, CREATE_TIME, WAIT_TIME, USE_TIME, DURATION,
    LEASES, REFUSALS, EXHAUSTIONS, CONNECT_FAILURES, CLOSED, CONDEMNED, BREAKER, BREAKER_CHANGES, RETRIES,
    COMMITS_LOOKED_UP, OVERDUE, SLOW_QUERIES, WARM_UP, LAST_SUCCESS, LAST_FAILURE, REQUESTS_REFUSED,
)  # fmt: skip
