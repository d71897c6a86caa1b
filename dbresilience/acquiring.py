"""How a request gets a connection: within its time, past the breaker, one that is alive."""

from __future__ import annotations

from time import perf_counter

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from . import signals
from .admission import HANGING_SECONDS, Admission
from .conf import Configuration
from .connection import ResilientConnection
from .deadlines import Allowance, current_allowance
from .errors import AcquireTimeout
from .generation import Generation
from .generations import Generations
from .lease import Holder, Lease
from .liveness import is_alive, is_demoted
from .operators import OperatorOrders
from .recovery import Recovery
from .signals import emit
from .snapshot import PoolSnapshot, out_of_time, too_many_waiting, unreachable

RECLAIM_SECONDS = 1.0
"""How long an acquire that timed out still waits for a connection that it took back from an ended thread."""


class Acquiring:
    """The way out of a pool."""

    alias: str
    configuration: Configuration
    leases: dict[Lease, Lease]
    admission: Admission
    generations: Generations
    recovery: Recovery
    orders: OperatorOrders

    def snapshot(self) -> PoolSnapshot:
        """Return the numbers of this moment."""
        raise NotImplementedError

    def timed_out(self, waited_seconds: float) -> AcquireTimeout:
        """Say that no connection was had in time, and who has them."""
        raise NotImplementedError

    def reclaim_orphans(self) -> bool:
        """Take back what threads held when they ended; whether there was any."""
        raise NotImplementedError

    def bury(self, connection: ResilientConnection, generation: Generation, error: psycopg.Error | None = None) -> None:
        """Close a connection for good, and condemn its generation if its death says so."""
        raise NotImplementedError

    def acquire(self, holder: Holder) -> Lease:
        """Hand out a living connection.

        Raises:
            AcquireTimeout: none became free within `timeout` seconds.
            TooManyWaiting: `max_waiting` requests wait already.
            DatabaseUnavailable: the server cannot be reached; the cause is attached.
        """
        seconds = self.configuration.timeout
        allowance = current_allowance()
        if allowance is not None:
            left = allowance.remaining(self.configuration.deadline_seconds)
            if left is not None and left < seconds:
                if left <= 0:
                    self._refuse_for_want_of_time(allowance)
                seconds = left
        started = perf_counter()
        if started >= self.orders.look_at:
            self.orders.look()
        try:
            connection, generation = self._take(seconds, started)
        except BaseException:
            if allowance is not None:
                allowance.spend(perf_counter() - started)
            raise
        lease = Lease(holder, connection, self, generation, started)  # type: ignore[arg-type]  # it is part of a Pool
        if allowance is not None:
            allowance.spend(lease.wait_seconds)
        connection.lease = lease
        connection.needs_lease = True
        self.leases[lease] = lease
        if signals.connection_acquired.receivers:
            pid = connection.backend_pid
            emit(signals.connection_acquired, self.alias, wait_seconds=lease.wait_seconds, backend_pid=pid)
        return lease

    def _refuse_for_want_of_time(self, allowance: Allowance) -> None:
        # Where an outage took the time, the next statement is refused for the outage.
        if not self.admission.clear:
            self.admission.admit(0)
        if allowance.outage is not None:
            raise unreachable(self.alias, allowance.outage, self.configuration) from allowance.outage
        raise out_of_time(self.alias, self.configuration)

    def _take(self, seconds: float, started: float) -> tuple[ResilientConnection, Generation]:
        configuration = self.configuration
        remaining = seconds
        reclaimed = len(self.leases) >= configuration.max_size and self.reclaim_orphans()
        while True:
            if not self.admission.clear:
                self.admission.admit(remaining)
                remaining = seconds - (perf_counter() - started)
            generation = self.generations.current or self.generations.open(remaining)
            if configuration.max_waiting and self.snapshot().queued >= configuration.max_waiting:
                raise too_many_waiting(self.snapshot(), configuration)
            try:
                connection = generation.take(remaining)
            except PoolClosed:
                # By us; or by somebody who has `connection.pool`, and then its successor may serve us.
                self.generations.condemn(generation, "closed from outside")
            except PoolTimeout as error:
                # A thread that ended while others waited may have left one.
                if not reclaimed and self.reclaim_orphans():
                    reclaimed, remaining = True, RECLAIM_SECONDS
                    continue
                waited_seconds = perf_counter() - started
                refusal = self.timed_out(waited_seconds)
                if waited_seconds >= HANGING_SECONDS and not self.recovery.has_connections(generation):
                    self.admission.report_suspicion(refusal)
                raise refusal from (self.recovery.last_failure or error)
            else:
                if self._is_fit(connection, generation):
                    return connection, generation
            remaining = seconds - (perf_counter() - started)

    def _is_fit(self, connection: ResilientConnection, generation: Generation) -> bool:
        """Whether a connection just taken can be lent; if not it is given up."""
        try:
            if generation.condemned:
                generation.give_up(connection)
                return False
            if is_alive(connection) and not is_demoted(connection):
                return True
        except BaseException:
            generation.put_back(connection)  # an interrupt; the slot must not be lost
            raise
        self.bury(connection, generation)
        return False
