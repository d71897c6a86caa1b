"""One psycopg_pool, steered: what goes out comes back, is cleaned or buried, and is counted.

psycopg_pool owns the queue, the hand-off and the background threads. What it lacks is a verdict:
after an outage it finds dead connections one at a time and retries with a delay that doubles
without a cap, while its dead slots still count as taken. So a *generation* here is one
`psycopg_pool.ConnectionPool`, and proof of death replaces it as a whole: idle connections are
closed, waiters are woken, and the next request connects at once.

A generation is replaced when one of its connections was told FATAL, found cut or never answered, or when
connecting fails while none of its connections is left. In that last case the breaker opens (see
`admission`). How a request gets a connection is in `acquiring`, what becomes of news in `recovery`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus
from psycopg_pool import ConnectionPool

from . import signals
from .acquiring import acquire
from .conf import Configuration
from .connection import ResilientConnection
from .deadlines import deadline
from .errors import AcquireTimeout
from .generation import Generation
from .lease import Lease
from .liveness import cause_of_death, is_spent
from .measures import LOST, THREAD_ENDED, measures_of
from .operators import OperatorOrders, OrderFile
from .overdue import CLEANUP_SECONDS
from .recovery import Recovery
from .session_state import clean_session
from .signals import emit
from .snapshot import PoolSnapshot, timed_out

_IDLE = int(TransactionStatus.IDLE)


class Pool:
    """The connections of one alias and configuration in this process.

    Args:
        alias: names it in logs and signals.
        configuration: sizes and timeouts.
        connect_arguments: returns those of `psycopg.connect`.
        configure: called with each new connection.
        on_server_full: called with this pool when the server had no slot for one more connection.
        orders: where an operator gives orders to all processes.
    """

    def __init__(
        self,
        alias: str,
        configuration: Configuration,
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
        on_server_full: Callable[[Pool], None],
        orders: OrderFile,
    ) -> None:
        self.alias = alias
        self.configuration = configuration
        self.leases: dict[Lease, Lease] = {}
        self.answered_at = 0.0
        """When the server last answered somebody whose lease has ended well, by `time.perf_counter`."""
        self.lease_ends_with_transaction = configuration.lease == "transaction"
        self.connect_arguments = connect_arguments
        self.measures = measures_of(alias)
        """Where durations are put down; None while nobody wants to know."""
        self._configure = configure
        self.recovery = Recovery(self, connect_arguments, configure, lambda: on_server_full(self), orders)
        self.generations = self.recovery.generations
        self.admission = self.recovery.admission
        self.orders = OperatorOrders(orders, self)

    # Acquire and release

    acquire = acquire

    def reclaim_orphans(self) -> bool:
        """Take back what threads held when they ended; whether there was any."""
        orphans = [lease for lease in list(self.leases) if lease.is_orphaned]
        for lease in orphans:
            lease.discard = True
            self.release(lease, THREAD_ENDED)
        return bool(orphans)

    def release(self, lease: Lease, why: str | None = None) -> None:
        """Take a connection back. Never raises; doing it twice is harmless.

        Args:
            lease: what ends.
            why: one of `measures.REASONS`, if it is not that its last statement has ended.
        """
        # The pop decides who ends the lease, whichever thread comes first.
        if self.leases.pop(lease, None) is None:
            return
        connection, measures = lease.connection, lease.measures
        held_seconds = lease.held_seconds if measures is not None else 0.0
        connection.lease = connection.batch = None  # what still waits belongs to a transaction that is over
        lease.holder = None
        generation = lease.generation
        if signals.connection_released.receivers:
            pid = connection.backend_pid
            emit(signals.connection_released, self.alias, held_seconds=lease.held_seconds, backend_pid=pid)
        if (
            # A transaction may be open with autocommit on, too, by a BEGIN of one's own.
            connection.pgconn.transaction_status != _IDLE
            or not connection.autocommit
            or lease.needs_reset
            or lease.discard
            or lease.last_error is not None
            or connection.farewell is not None
        ) and not self._make_fit(lease):
            if measures is not None:
                measures.add_hold(held_seconds, why if why == THREAD_ENDED else LOST)
            return
        if measures is not None:
            measures.add_hold(held_seconds, why)
        if lease.last_error is None and lease.seen_at > lease.acquired_at:
            self.answered_at = connection.answered_at = lease.seen_at
            if not self.admission.clear:
                self.admission.report_answer(lease.seen_at)
        if generation.condemned:
            connection.close()
            # The successor was kept small so that the sum stays within max_size.
            self.generations.resize_for_survivors()
        else:
            generation.put_back(connection)

    def _make_fit(self, lease: Lease) -> bool:
        """Roll back and clean what was left behind; False if the connection had to be buried."""
        connection, error = lease.connection, lease.last_error
        if not is_spent(lease):
            try:
                with deadline(CLEANUP_SECONDS):
                    connection.rollback()
                    if not connection.autocommit:
                        connection.autocommit = True
                    if lease.needs_reset:
                        clean_session(connection, self._configure)
            except psycopg.Error as failure:
                error = failure
            else:
                return True
        self.bury(connection, lease.generation, error)
        return False

    def bury(self, connection: ResilientConnection, generation: Generation, error: psycopg.Error | None = None) -> None:
        """Close a connection for good, and condemn its generation if its death says so."""
        reason, meaning = cause_of_death(connection, error)
        connection.end_reason = reason
        connection.close()
        if meaning.condemn:
            self.condemn(generation, reason)
        if generation.condemned:
            self.generations.resize_for_survivors()
        else:
            generation.give_up(connection)

    # Ends

    def condemn(self, generation: Generation, reason: str) -> None:
        """Give up all connections of `generation`: idle ones now, used ones on release."""
        self.generations.condemn(generation, reason)

    def recycle(self, reason: str = "recycled") -> None:
        """Replace every connection: idle ones now, used ones on release."""
        generation = self.generations.open_no_more()
        if generation is not None:
            self.condemn(generation, reason)

    def pause(self, seconds: float) -> None:
        """Let go of every connection, and let requests wait for up to `seconds`, or until `resume()`."""
        self.admission.pause(seconds)
        self.recycle("paused")

    def resume(self) -> None:
        """End a pause; harmless without one."""
        self.admission.resume()

    def release_idle(self) -> bool:
        """Let go of every connection if none is in use, for somebody who needs the server's slots.

        Returns:
            Whether there were any.
        """
        generation = self.generations.current
        if generation is None or self.leases or not generation.idle:
            return False
        self.condemn(generation, "the server is full")
        return True

    def close(self, reason: str = "closed", *, wait_seconds: float = 1.0) -> None:
        """Close all connections, used ones on release; the next acquire opens the pool again.

        Args:
            reason: for the signal.
            wait_seconds: how long to wait for each of the pool's threads to end.
        """
        generation = self.generations.take()
        if generation is None:
            return
        generation.close(wait_seconds=wait_seconds)
        emit(signals.pool_closed, self.alias, reason=reason)

    # Numbers

    def psycopg_pool(self) -> ConnectionPool[ResilientConnection]:
        """Return psycopg's pool of the current generation, with all that is idle in it."""
        generation = self.generations.current or self.generations.open(self.configuration.timeout)
        generation.settle()
        return generation.psycopg_pool

    def snapshot(self) -> PoolSnapshot:
        """Return the numbers of this moment; opens nothing."""
        generation = self.generations.current
        return PoolSnapshot.of(
            self.alias,
            self.configuration,
            in_use=len(self.leases),
            idle=generation.idle if generation is not None else 0,
            open=self.recovery.physical.count(generation),
            waiting=self.generations.waiting_for_room + (generation.waiting if generation is not None else 0),
            generation=self.generations.number,
            opened_total=self.recovery.opened_total,
            connect_failures_total=self.recovery.connect_failures_total,
            server_full_total=self.recovery.server_full_total,
            breaker_opened_total=self.admission.opened_total,
            breaker=self.admission.state,
            warm_up=self.admission.warm_up,
        )

    def timed_out(self, waited_seconds: float) -> AcquireTimeout:
        """Say that no connection was had in time, and who has them."""
        snapshot = self.snapshot()
        longest = sorted(self.leases.values(), key=lambda lease: lease.acquired_at)[:3]
        error = timed_out(snapshot, waited_seconds, self.configuration, [lease.describe() for lease in longest])
        emit(
            signals.acquire_timed_out, self.alias, waited_seconds=waited_seconds, snapshot=snapshot,
            could_not_connect=error.could_not_connect,
        )  # fmt: skip
        return error
