"""Logging, the first receiver of the signals.

Each record has a readable message and the same facts as attributes (``event``, ``alias`` and
those of the signal), so that a JSON formatter gets them as fields. Loggers:
``dbresilience.connections``, ``dbresilience.slow_queries``, ``dbresilience.requests``.
"""

from __future__ import annotations

import logging
from typing import Any

from . import signals
from .connection import ResilientConnection
from .slow_queries import SlowQuery

connections_log = logging.getLogger("dbresilience.connections")
slow_queries_log = logging.getLogger("dbresilience.slow_queries")

_MESSAGES: tuple[tuple[Any, str, int, str], ...] = (
    (signals.pool_opened, "pool_opened", logging.INFO,
     "pool %(alias)s opened: max_size %(max_size)s, min_size %(min_size)s"),
    (signals.pool_warmed, "pool_warmed", logging.INFO, "pool %(alias)s: warm-up %(outcome)s after %(seconds).3f s"),
    (signals.pool_closed, "pool_closed", logging.INFO, "pool %(alias)s closed: %(reason)s"),
    (signals.pool_condemned, "pool_condemned", logging.WARNING,
     "pool %(alias)s gives up generation %(generation)s: %(reason)s"),
    (signals.connection_opened, "connection_opened", logging.INFO,
     "pool %(alias)s connected in %(connect_seconds).3f s, backend %(backend_pid)s"),
    (signals.connection_failed, "connection_failed", logging.WARNING,
     "pool %(alias)s cannot connect after %(connect_seconds).3f s: %(exception)s"),
    (signals.connection_closed, "connection_closed", logging.INFO,
     "pool %(alias)s closed a connection, %(age_seconds).0f s old: %(reason)s"),
    (signals.connection_acquired, "connection_acquired", logging.DEBUG,
     "pool %(alias)s acquired backend %(backend_pid)s after %(wait_seconds).6f s"),
    (signals.connection_released, "connection_released", logging.DEBUG,
     "pool %(alias)s released backend %(backend_pid)s after %(held_seconds).6f s"),
    (signals.connection_kept, "connection_kept", logging.INFO,
     "pool %(alias)s: a connection is kept to the end of the request, for %(reason)s left at %(call_site)s; "
     "pinned() would keep it for a block only"),
    (signals.cursor_left_open, "cursor_left_open", logging.WARNING,
     "pool %(alias)s: a cursor opened by %(opened_by)s was left open and kept its connection for "
     "%(held_seconds).3f s, with: %(query)s"),
    (signals.breaker_opened, "breaker_opened", logging.ERROR,
     "pool %(alias)s refuses requests until the database can be reached: %(cause)s"),
    (signals.breaker_closed, "breaker_closed", logging.WARNING,
     "pool %(alias)s can reach the database again after %(open_seconds).1f s"),
    (signals.pool_paused, "pool_paused", logging.WARNING, "pool %(alias)s is paused for up to %(seconds).0f s"),
    (signals.pool_resumed, "pool_resumed", logging.WARNING, "pool %(alias)s goes on"),
    (signals.statement_overdue, "statement_overdue", logging.WARNING,
     "pool %(alias)s cancelled a statement at its request's deadline of %(deadline_seconds)s s "
     "(answered: %(answered)s): %(query)s"),
    (signals.unit_repeated, "unit_repeated", logging.INFO,
     "pool %(alias)s: %(unit)s runs again after %(delay_seconds).3f s; attempt %(attempt)s: %(classification)s, "
     "%(exception)s"),
    (signals.unit_given_up, "unit_given_up", logging.WARNING,
     "pool %(alias)s: %(unit)s does not run again, since %(reason)s; attempt %(attempt)s ended by %(classification)s: "
     "%(exception)s"),
    (signals.read_repeated, "read_repeated", logging.INFO,
     "pool %(alias)s: a read is sent again; attempt %(attempt)s ended by %(classification)s: %(exception)s"),
    (signals.commit_looked_up, "commit_looked_up", logging.WARNING,
     "pool %(alias)s: the connection was lost after COMMIT was sent; looked up in %(seconds).3f s: %(outcome)s "
     "%(reason)s"),
    (signals.orphaned_session_ended, "orphaned_session_ended", logging.WARNING,
     "pool %(alias)s: backend %(backend_pid)s was ended; COMMIT never reached it, and it held its locks"),
    (signals.commit_lookup_disabled, "commit_lookup_disabled", logging.WARNING,
     "pool %(alias)s cannot look up COMMITs on this server; an interrupted one is of unknown outcome: %(exception)s"),
    (signals.acquire_timed_out, "acquire_timed_out", logging.WARNING,
     "pool %(alias)s had no connection for %(waited_seconds).1f s: %(snapshot)s"),
)  # fmt: skip


_places_that_keep: set[str] = set()


def _is_routine(event: str, details: dict[str, Any]) -> bool:
    """Whether the record is of no interest by itself: idle connections end all the time, during an outage each
    attempt opens and gives up a pool, and a line of code that leaves something on its session does so each time."""
    if event == "pool_opened":
        return bool(details["generation"] > 1)
    if event == "connection_closed":
        return bool(details["reason"] == ResilientConnection.end_reason)
    if event == "connection_kept":
        place = details["call_site"]
        known = place in _places_that_keep
        _places_that_keep.add(place)
        return known
    return event == "pool_condemned" and bool(details["unreachable"])


class _DriversRepetitions(logging.Filter):
    """Leaves out what psycopg's own pool says of ours: each event is in a signal already."""

    def filter(self, record: logging.LogRecord) -> bool:
        about = record.args[0] if isinstance(record.args, tuple) and record.args else None
        return not (
            isinstance(about, ResilientConnection) or (isinstance(about, str) and about.startswith("dbresilience-"))
        )


class _Receiver:
    """Turns one signal into one record."""

    def __init__(self, event: str, level: int, message: str) -> None:
        self.event, self.level, self.message = event, level, message

    def __call__(self, sender: str, signal: Any, **details: Any) -> None:
        level = logging.DEBUG if _is_routine(self.event, details) else self.level
        if connections_log.isEnabledFor(level):
            facts = {name: _plain(value) for name, value in details.items()}
            connections_log.log(level, self.message, facts, extra={"event": self.event, **facts})


def _plain(value: Any) -> Any:
    if isinstance(value, BaseException):
        return " ".join(str(value).split())
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def log_slow_query(sender: str, query: SlowQuery, **details: Any) -> None:
    """Log one slow statement, at WARNING."""
    request = f" for {query.method} {query.path}" if query.method else ""
    parameters = f" with {query.parameters}" if query.parameters is not None else ""
    slow_queries_log.warning(
        "slow query on %s: %.3f s (waited %.3f s for the connection), %s rows, at %s%s: %s%s",
        query.alias,
        query.duration_seconds,
        query.wait_seconds,
        query.rows if query.rows >= 0 else "no",
        query.call_site,
        request,
        query.sql,
        parameters,
        extra={
            "event": "slow_query",
            **{name: getattr(query, name) for name in SlowQuery.__dataclass_fields__},
        },
    )


# Kept here, because signals hold their receivers weakly.
_drivers_repetitions = _DriversRepetitions("dbresilience.drivers_repetitions")
_receivers = [(signal, event, level, _Receiver(event, level, message)) for signal, event, level, message in _MESSAGES]


def connect_receivers() -> None:
    """Start logging. Calling it again, also after a reload of this module, changes nothing.

    The two per-lease events are connected only if DEBUG is enabled for their logger at this
    moment, since they cost a call for each query.
    """
    for signal, event, level, receiver in _receivers:
        if level > logging.DEBUG or connections_log.isEnabledFor(logging.DEBUG):
            signal.disconnect(dispatch_uid=f"dbresilience.logs.{event}", sender=None)
            signal.connect(receiver, dispatch_uid=f"dbresilience.logs.{event}")
    signals.slow_query.disconnect(dispatch_uid="dbresilience.logs.slow_query", sender=None)
    signals.slow_query.connect(log_slow_query, dispatch_uid="dbresilience.logs.slow_query")
    driver_log = logging.getLogger("psycopg.pool")
    for earlier in [each for each in driver_log.filters if getattr(each, "name", "") == _drivers_repetitions.name]:
        driver_log.removeFilter(earlier)
    driver_log.addFilter(_drivers_repetitions)
