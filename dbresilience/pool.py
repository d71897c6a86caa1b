"""One psycopg_pool, steered: acquire, release, generations, recovery.

psycopg_pool owns the queue, the hand-off and the background threads. What it lacks is a verdict:
after an outage it finds dead connections one at a time and retries with a delay that doubles
without a cap, while its dead slots still count as taken. So a *generation* here is one
`psycopg_pool.ConnectionPool`, and proof of death replaces it as a whole: idle connections are
closed, waiters are woken, and the next request connects at once.

A generation is replaced when one of its connections was told FATAL or found cut, or when
connecting fails while none of its connections is left. In that second case those who wait are
refused at once, with the reason.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool, PoolClosed, PoolTimeout

from . import signals
from .conf import Configuration
from .connection import PhysicalConnections, ResilientConnection
from .errors import AcquireTimeout
from .generation import Generation
from .lease import Holder, Lease
from .liveness import cause_of_death, is_alive, is_hung_up, is_spent
from .session_state import clean_session
from .signals import emit
from .snapshot import PoolSnapshot, timed_out, too_many_waiting, unreachable

_IDLE = int(TransactionStatus.IDLE)
RECLAIM_SECONDS = 1.0
"""How long an acquire that timed out still waits for a connection that it took back from an ended thread."""


class Pool:
    """The connections of one alias and configuration in this process.

    Args:
        alias: names it in logs and signals.
        configuration: sizes and timeouts.
        connect_arguments: returns those of `psycopg.connect`.
        configure: called with each new connection.
    """

    def __init__(
        self,
        alias: str,
        configuration: Configuration,
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
    ) -> None:
        self.alias = alias
        self.configuration = configuration
        self.leases: dict[Lease, Lease] = {}
        self.physical = PhysicalConnections()
        self.opened_total = 0
        self.connect_failures_total = 0
        self.last_failure: Exception | None = None
        self.lease_ends_with_transaction = configuration.lease == "transaction"
        self._connect_arguments = connect_arguments
        self._configure = configure
        self._room = threading.Condition()
        self._generation: Generation | None = None
        self._generations = 0
        self._waiting_for_room = 0

    # Acquire and release

    def acquire(self, holder: Holder) -> Lease:
        """Hand out a living connection.

        Raises:
            AcquireTimeout: none became free within `timeout` seconds.
            TooManyWaiting: `max_waiting` requests wait already.
            DatabaseUnavailable: the server cannot be reached; the cause is attached.
        """
        configuration = self.configuration
        remaining = configuration.timeout
        started = perf_counter()
        reclaimed = len(self.leases) >= configuration.max_size and self._reclaim_orphans()
        while True:
            generation = self._generation or self._open(remaining)
            if configuration.max_waiting and self.snapshot().queued >= configuration.max_waiting:
                raise too_many_waiting(self.snapshot(), configuration)
            try:
                connection = generation.take(remaining)
            except PoolClosed:
                if generation.failure is not None:
                    raise unreachable(self.alias, generation.failure, self.configuration) from generation.failure
                # Closed by us, or by somebody who has `connection.pool`: its successor may serve us.
                self.condemn(generation, "closed from outside")
            except PoolTimeout as error:
                # A thread that ended while others waited may have left one.
                if not reclaimed and self._reclaim_orphans():
                    reclaimed, remaining = True, RECLAIM_SECONDS
                    continue
                raise self._timed_out(perf_counter() - started) from (self.last_failure or error)
            else:
                if self._is_fit(connection, generation):
                    break
            remaining = configuration.timeout - (perf_counter() - started)
        lease = Lease(holder, connection, self, generation, started)
        connection.lease = lease
        connection.needs_lease = True
        self.leases[lease] = lease
        if signals.connection_acquired.receivers:
            pid = connection.backend_pid
            emit(signals.connection_acquired, self.alias, wait_seconds=lease.wait_seconds, backend_pid=pid)
        return lease

    def _is_fit(self, connection: ResilientConnection, generation: Generation) -> bool:
        """Whether a connection just taken can be lent; if not it is given up."""
        try:
            if generation.condemned:
                generation.give_up(connection)
                return False
            if is_alive(connection):
                return True
        except BaseException:
            generation.put_back(connection)  # an interrupt; the slot must not be lost
            raise
        self._bury(connection, generation)
        return False

    def _reclaim_orphans(self) -> bool:
        """Take back what threads held when they ended; whether there was any."""
        orphans = [lease for lease in list(self.leases) if lease.is_orphaned]
        for lease in orphans:
            lease.discard = True
            self.release(lease)
        return bool(orphans)

    def release(self, lease: Lease) -> None:
        """Take a connection back. Never raises; doing it twice is harmless."""
        # The pop decides who ends the lease, whichever thread comes first.
        if self.leases.pop(lease, None) is None:
            return
        connection = lease.connection
        connection.lease = None
        lease.holder = None
        generation = lease.generation
        if signals.connection_released.receivers:
            pid = connection.backend_pid
            emit(signals.connection_released, self.alias, held_seconds=lease.held_seconds, backend_pid=pid)
        if is_spent(lease):
            self._bury(connection, generation, lease.last_error)
            return
        # A transaction may be open with autocommit on, too, by a BEGIN of one's own.
        if connection.pgconn.transaction_status != _IDLE or not connection.autocommit or lease.needs_reset:
            try:
                connection.rollback()
                if not connection.autocommit:
                    connection.autocommit = True
                if lease.needs_reset:
                    clean_session(connection, self._configure)
            except psycopg.Error as error:
                self._bury(connection, generation, error)
                return
        if generation.condemned:
            connection.close()
            # The successor was kept small so that the sum stays within max_size.
            self._resize_for_survivors()
        else:
            generation.put_back(connection)

    def _bury(
        self, connection: ResilientConnection, generation: Generation, error: psycopg.Error | None = None
    ) -> None:
        """Close a connection for good, and condemn its generation if its death says so."""
        reason, meaning = cause_of_death(connection, error)
        connection.end_reason = reason
        connection.close()
        if meaning.condemn:
            self.condemn(generation, reason)
        if generation.condemned:
            self._resize_for_survivors()
        else:
            generation.give_up(connection)

    # Generations

    def _open(self, timeout: float) -> Generation:
        deadline = perf_counter() + timeout
        with self._room:
            # Sessions of an older generation still in use count towards max_size.
            while self._generation is None and len(self.leases) >= self.configuration.max_size:
                self._waiting_for_room += 1
                try:
                    if not self._room.wait(timeout=deadline - perf_counter()):
                        raise self._timed_out(self.configuration.timeout)
                finally:
                    self._waiting_for_room -= 1
            if self._generation is not None:
                return self._generation
            self._generations += 1
            generation = Generation(self._generations, self, len(self.leases), self._connect_arguments, self._configure)
            self._generation = generation
        sizes = {"max_size": self.configuration.max_size, "min_size": self.configuration.min_size}
        emit(signals.pool_opened, self.alias, generation=generation.number, **sizes)
        return generation

    def condemn(self, generation: Generation, reason: str, *, unreachable: bool = False) -> None:
        """Give up all connections of `generation`: idle ones now, used ones on release."""
        with self._room:
            if generation.condemned:
                return
            generation.condemned = True
            if self._generation is generation:
                self._generation = None
        generation.close_soon()
        about = {"generation": generation.number, "reason": reason, "unreachable": unreachable}
        emit(signals.pool_condemned, self.alias, **about)

    def _resize_for_survivors(self) -> None:
        with self._room:
            self._room.notify_all()
            generation = self._generation
            if generation is not None:
                leases = list(self.leases.values())
                generation.make_room_for(sum(1 for lease in leases if lease.generation is not generation))

    def close(self, reason: str = "closed", *, wait_seconds: float = 1.0) -> None:
        """Close all connections, used ones on release; the next acquire opens the pool again.

        Args:
            reason: for the signal.
            wait_seconds: how long to wait for each of the pool's threads to end.
        """
        with self._room:
            generation, self._generation = self._generation, None
            if generation is None:
                return
            generation.condemned = True
        generation.close(wait_seconds=wait_seconds)
        emit(signals.pool_closed, self.alias, reason=reason)

    def take_generation(self) -> Generation | None:
        """Hand over the current generation, for a forked child; the pool starts anew."""
        self._room = threading.Condition()
        self.physical.forget_lock()
        generation, self._generation = self._generation, None
        return generation

    # News of a generation (see `generation.Owner`)

    def connection_opened(self, connection: ResilientConnection) -> None:
        """Count a physical connection."""
        self.opened_total += 1
        self.last_failure = None
        self.physical.add(connection)

    def connection_failed(self, generation: Generation, exception: Exception) -> None:
        """Count a failed attempt; with no connection left, refuse those who wait."""
        self.connect_failures_total += 1
        self.last_failure = exception
        if not self._has_connections(generation):
            generation.failure = exception
            self.condemn(generation, "the server cannot be reached", unreachable=True)

    def _has_connections(self, generation: Generation) -> bool:
        # A connection whose holder has not noticed yet that it was cut will serve nobody.
        return bool(generation.idle) or any(
            lease.generation is generation and not is_hung_up(lease.connection) for lease in list(self.leases.values())
        )

    # Numbers

    def psycopg_pool(self) -> ConnectionPool[ResilientConnection]:
        """Return psycopg's pool of the current generation, with all that is idle in it."""
        generation = self._generation or self._open(self.configuration.timeout)
        generation.settle()
        return generation.psycopg_pool

    def snapshot(self) -> PoolSnapshot:
        """Return the numbers of this moment; opens nothing."""
        generation = self._generation
        return PoolSnapshot.of(
            self.alias,
            self.configuration,
            in_use=len(self.leases),
            idle=generation.idle if generation is not None else 0,
            waiting=self._waiting_for_room + (generation.waiting if generation is not None else 0),
            generation=generation.number if generation is not None else self._generations,
            opened_total=self.opened_total,
            connect_failures_total=self.connect_failures_total,
        )

    def _timed_out(self, waited_seconds: float) -> AcquireTimeout:
        snapshot = self.snapshot()
        emit(signals.acquire_timed_out, self.alias, waited_seconds=waited_seconds, snapshot=snapshot)
        longest = sorted(self.leases.values(), key=lambda lease: lease.acquired_at)[:3]
        return timed_out(snapshot, waited_seconds, self.configuration, [lease.describe() for lease in longest])
