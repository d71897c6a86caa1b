"""What happened to the pool and its connections, as Django signals.

Logging is merely their first receiver. All are sent with `send_robust`: a receiver that raises
is logged by Django and never costs a query or a connection. The sender is the alias; that of
`request_refused`, which is about a request, is None where the error does not say which database it came from.
"""

from __future__ import annotations

from typing import Any

from django.dispatch import Signal

from .process import keep

pool_opened = Signal()
"""A pool began its work. Carries `max_size`, `min_size`, `generation`."""

pool_warmed = Signal()
"""The warm-up of a process that serves has ended. Carries `outcome` (``done``, or ``failed`` when the database could
not be asked) and `seconds`."""

pool_closed = Signal()
"""A pool ended: exit, changed configuration, or `close_pool()`. Carries `reason`."""

pool_condemned = Signal()
"""All connections of a generation are given up after one proof of death. Carries `generation`,
`reason`, and `unreachable`: whether it had no connection because none could be opened."""

connection_opened = Signal()
"""A physical connection was established. Carries `connect_seconds`, `backend_pid`."""

connection_failed = Signal()
"""The server could not be reached or refused. Carries `exception`, `connect_seconds`."""

connection_closed = Signal()
"""A physical connection was closed or found dead. Carries `reason`, `backend_pid`,
`age_seconds`."""

connection_acquired = Signal()
"""A lease began. Carries `wait_seconds`, `backend_pid`."""

connection_released = Signal()
"""A lease ended. Carries `held_seconds`, `backend_pid`."""

connection_kept = Signal()
"""A lease lasts to the end of its request, because a statement outside `pinned()` left something on the
session. Carries `reason`, `call_site`."""

cursor_left_open = Signal()
"""A request ended with a cursor open, which kept its connection. Carries `opened_by` (the
function that opened the last one), `query`, `held_seconds`."""

acquire_timed_out = Signal()
"""No connection was had in time. Carries `waited_seconds`, `snapshot`, and `could_not_connect`: whether the pool had
room for one more, so that what was lacking is the server."""

acquire_refused = Signal()
"""A request for a connection was refused, for whatever reason. Carries `classification`, `exception`."""

breaker_opened = Signal()
"""The database cannot be reached: requests are refused at once from now on. Carries `cause`,
`classification`."""

breaker_closed = Signal()
"""The database can be reached again. Carries `open_seconds`."""

pool_paused = Signal()
"""Requests wait for a connection until `resume()`. Carries `seconds`, the longest."""

pool_resumed = Signal()
"""A pause was ended."""

statement_overdue = Signal()
"""A statement was cancelled at the deadline of its request or block. Carries `answered` (whether the server said so; if
not, the connection was closed), `deadline_seconds` (of the `deadline()` block, or else of the alias), `query`,
`backend_pid`."""

unit_repeated = Signal()
"""A unit marked by `retry` failed and runs again. Carries `unit`, `attempt` (the number of the one that failed),
`classification`, `exception`, `delay_seconds`."""

unit_recovered = Signal()
"""A unit marked by `retry` ran well after it had failed. Carries `unit`, `attempt` (the number of the one that did)."""

unit_given_up = Signal()
"""A unit marked by `retry` failed in a way that may go again, and does not. Carries `unit`, `attempt`,
`classification`, `exception`, `reason`."""

read_repeated = Signal()
"""A read outside a transaction lost its connection and is sent again on another. Carries `attempt`, `classification`,
`exception`."""

commit_looked_up = Signal()
"""The connection was lost after COMMIT was sent. Carries `outcome` (``committed``, ``not committed``,
``unknown``), `reason` (why it is unknown), `seconds`, `exception`."""

orphaned_session_ended = Signal()
"""A look-up found the session that COMMIT never reached still in its transaction, with its locks, and ended it
(`pg_terminate_backend`). Carries `backend_pid`. Sent in the look-up's thread."""

commit_lookup_disabled = Signal()
"""The server does not tell what a look-up of COMMITs needs, so each interrupted one is of unknown outcome. Sent once
for each pool. Carries `exception`, which says what is missing."""

slow_query = Signal()
"""A statement took at least `slow_query_seconds`. Carries `query`, a
`dbresilience.slow_queries.SlowQuery`."""

request_refused = Signal()
"""A request was answered 503 or 504 because of the database. Carries `exception`,
`classification`, `status`, `request`."""

__all__ = [
    "acquire_refused",
    "acquire_timed_out",
    "breaker_closed",
    "breaker_opened",
    "commit_looked_up",
    "commit_lookup_disabled",
    "connection_acquired",
    "connection_closed",
    "connection_failed",
    "connection_kept",
    "connection_opened",
    "connection_released",
    "cursor_left_open",
    "emit",
    "orphaned_session_ended",
    "pool_closed",
    "pool_condemned",
    "pool_opened",
    "pool_paused",
    "pool_resumed",
    "pool_warmed",
    "read_repeated",
    "request_refused",
    "slow_query",
    "statement_overdue",
    "unit_given_up",
    "unit_recovered",
    "unit_repeated",
]


def emit(signal: Signal, alias: str | None, **details: Any) -> None:
    """Send `signal` for `alias`; a no-op when nobody listens."""
    if signal.receivers:
        signal.send_robust(sender=alias, alias=alias, **details)


keep(globals(), *(name for name in __all__ if name != "emit"))
