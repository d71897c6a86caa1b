"""How a request gets a connection: within its time, past the breaker, one that is alive."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

from psycopg_pool import PoolClosed, PoolTimeout

from . import signals
from .admission import HANGING_SECONDS
from .deadlines import Allowance, current_allowance
from .errors import DatabaseUnavailable, classify
from .lease import Holder, Lease
from .liveness import LOOK_AFTER_SECONDS, is_alive, is_demoted
from .signals import emit
from .snapshot import out_of_time, too_many_waiting, unreachable
from .watching import use, watch

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .generation import Generation
    from .pool import Pool

RECLAIM_SECONDS = 1.0
"""How long an acquire that timed out still waits for a connection that it took back from an ended thread."""


def acquire(pool: Pool, holder: Holder) -> Lease:
    """Hand out a living connection.

    Raises:
        AcquireTimeout: none became free within `timeout` seconds.
        TooManyWaiting: `max_waiting` requests wait already.
        OutOfTime: the request's deadline had passed before.
        DatabaseUnavailable: the server cannot be reached; the cause is attached.
    """
    seconds = pool.configuration.timeout
    allowance = current_allowance()
    if allowance is not None:
        left = allowance.remaining(pool.configuration.deadline_seconds)
        if left is not None and left < seconds:
            if left <= 0:
                _refuse_for_want_of_time(pool, allowance)
            seconds = left
    started = perf_counter()
    if started >= pool.orders.look_at:
        pool.orders.look()
    connection, generation = None, pool.generations.current
    if generation is not None and pool.admission.clear:
        # Nearly always there is a spare, and nobody is left to wait beside it: nothing else has to be looked at.
        connection = generation.take_spare()
        if (
            connection is not None
            and (started - connection.answered_at > LOOK_AFTER_SECONDS or connection.must_write or generation.condemned)
            and not _is_fit(pool, connection, generation)
        ):
            connection = None
    if connection is None or generation is None:
        try:
            connection, generation = _take(pool, seconds, started)
        except BaseException as error:
            if allowance is not None:
                allowance.spend(perf_counter() - started)
            _tell_refused(pool, error)
            raise
    lease = Lease(holder, connection, pool, generation, started)
    if allowance is not None:
        allowance.spend(lease.wait_seconds)
    connection.lease = lease
    connection.needs_lease = True
    pool.leases[lease] = lease
    if use.is_on:
        watch(lease)
    if pool.measures is not None:
        pool.measures.waits.append(lease.wait_seconds)
    if signals.connection_acquired.receivers:
        pid = connection.backend_pid
        emit(signals.connection_acquired, pool.alias, wait_seconds=lease.wait_seconds, backend_pid=pid)
    return lease


def _refuse_for_want_of_time(pool: Pool, allowance: Allowance) -> NoReturn:
    try:
        # Where an outage took the time, the next statement is refused for the outage.
        if not pool.admission.clear:
            pool.admission.admit(0)
        if allowance.outage is not None:
            raise unreachable(pool.alias, allowance.outage, pool.configuration) from allowance.outage
        raise out_of_time(pool.alias, pool.configuration)
    except DatabaseUnavailable as refusal:
        _tell_refused(pool, refusal)
        raise


def _tell_refused(pool: Pool, error: BaseException) -> None:
    if isinstance(error, DatabaseUnavailable) and signals.acquire_refused.receivers:
        emit(signals.acquire_refused, pool.alias, classification=classify(error), exception=error)


def _take(pool: Pool, seconds: float, started: float) -> tuple[ResilientConnection, Generation]:
    configuration = pool.configuration
    remaining = seconds
    reclaimed = len(pool.leases) >= configuration.max_size and pool.reclaim_orphans()
    while True:
        pool.generations.is_wanted = True
        if not pool.admission.clear:
            pool.admission.admit(remaining)
            remaining = seconds - (perf_counter() - started)
        generation = pool.generations.current or pool.generations.open(remaining)
        # A snapshot costs as much as a lease.
        most = configuration.max_waiting
        if most and generation.waiting + pool.generations.waiting_for_room >= most:
            snapshot = pool.snapshot()
            if snapshot.queued >= most:
                raise too_many_waiting(snapshot, configuration)
        try:
            connection = generation.take(remaining)
        except PoolClosed:
            # By us; or by somebody who has `connection.pool`, and then its successor may serve us.
            pool.generations.condemn(generation, "closed from outside")
        except PoolTimeout as error:
            # A thread that ended while others waited may have left one.
            if not reclaimed and pool.reclaim_orphans():
                reclaimed, remaining = True, RECLAIM_SECONDS
                continue
            waited_seconds = perf_counter() - started
            refusal = pool.timed_out(waited_seconds)
            if waited_seconds >= HANGING_SECONDS and not pool.recovery.has_connections(generation):
                pool.admission.report_suspicion(refusal)
            raise refusal from (pool.recovery.last_failure or error)
        else:
            if _is_fit(pool, connection, generation):
                return connection, generation
        remaining = seconds - (perf_counter() - started)


def _is_fit(pool: Pool, connection: ResilientConnection, generation: Generation) -> bool:
    """Whether a connection just taken can be lent; if not it is given up."""
    try:
        if generation.condemned:
            generation.give_up(connection)
            return False
        if is_alive(connection) and not (connection.must_write and is_demoted(connection)):
            return True
    except BaseException:
        generation.put_back(connection)  # an interrupt; the slot must not be lost
        raise
    pool.bury(connection, generation)
    return False
