"""A read outside a transaction whose session was lost is sent again, on another connection.

Nothing is promised to whoever asks outside a transaction but the state of one moment, and the next
moment is as good. Everything else that was sent is not repeated: see `retry` for whole transactions.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

import psycopg

from . import signals
from .deadlines import seconds_left, spend
from .errors import classify, was_sent
from .meanings import READ
from .session_state import is_plain_read, traits_of
from .signals import emit
from .units import retries_are_off

if TYPE_CHECKING:
    from .executing import LeasedCursorMixin

LONGEST_READ_SECONDS = 1.0
"""A read that was lost after more than this is not sent again: it may be why the session ended, and would take as
long once more."""
FIRST_DELAY_SECONDS = 0.05
LONGEST_DELAY_SECONDS = 1.0


def delay_seconds(attempt: int) -> float:
    """Return how long to wait after attempt number `attempt` failed: anything up to a limit that doubles, so that
    those who failed together do not come back together."""
    return random.uniform(0, min(LONGEST_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (attempt - 1)))


def repeat(
    cursor: LeasedCursorMixin,
    execute: Callable[..., Any],
    query: Any,
    params: Any,
    kwargs: dict[str, Any],
    *,
    error: psycopg.Error,
    started: float,
) -> bool:
    """Execute a statement again if `error` allows; whether it is done. What fails anew is raised."""
    lease = cursor.lease
    if lease is None or retries_are_off.get():
        return False
    pool, first = lease.pool, error
    for attempt in range(1, pool.configuration.retry_attempts):
        if not _may_go_again(cursor, error, query) or perf_counter() - started > LONGEST_READ_SECONDS:
            break
        if attempt > 1:
            delay = delay_seconds(attempt - 1)
            if seconds_left(delay, pool.configuration.deadline_seconds) < delay:
                break
            sleep(delay)
            spend(delay)
        failures = pool.recovery.connect_failures_total
        holder = cursor.lease.holder if cursor.lease is not None else None
        assert holder is not None
        holder.exchange_connection(cursor)
        if pool.recovery.connect_failures_total != failures:
            # The server was away, and perhaps because of this very statement.
            break
        emit(signals.read_repeated, pool.alias, attempt=attempt, classification=classify(error), exception=error)
        started = perf_counter()
        try:
            execute(query, params, **kwargs)
        except psycopg.Error as again:
            cursor.note_error(again, query)
            error = again
        else:
            return True
    if error is not first:
        raise error
    return False


def _may_go_again(cursor: LeasedCursorMixin, error: psycopg.Error, query: Any) -> bool:
    lease, connection = cursor.lease, cursor.connection
    holder = lease.holder if lease is not None else None
    if holder is None or classify(error).retry != READ or not connection.autocommit or not holder.can_exchange(cursor):
        return False
    if not was_sent(error):
        return True
    traits = traits_of(query, connection)
    return (traits is None or not traits.leaves_state) and is_plain_read(query, connection)
