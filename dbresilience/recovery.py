"""What becomes of news about a pool's connections: counted, a generation condemned, the breaker told, a probe sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from .admission import Admission
from .connection import ProbingConnection, ResilientConnection
from .errors import StatementOverdue, classify
from .generation import Generation
from .generations import Generations, Owner
from .liveness import is_hung_up
from .operators import OrderFile
from .overdue import SUSPICIOUS_SECONDS
from .pacing import SharedPace
from .physical import PhysicalConnections
from .probe_pace import FULL
from .snapshot import paused, unreachable

FULL_PACE_SECONDS = 0.25
"""Least time between two attempts to connect to a full server, of all processes of this machine together."""


class Recovery:
    """Keeps a pool's generations and its breaker in step with what happens to connections (see `GenerationObserver`).

    Args:
        pool: whose connections these are.
        connect_arguments: returns those of `psycopg.connect`.
        configure: called with each new connection.
        on_server_full: called when the server had no slot for one more connection.
        orders: names the database to this machine's processes, which share a pace.
    """

    def __init__(
        self,
        pool: Owner,
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
        on_server_full: Callable[[], None],
        orders: OrderFile,
    ) -> None:
        self.alias = pool.alias
        self.configuration = configuration = pool.configuration
        self.physical = PhysicalConnections()
        self.opened_total = 0
        self.connect_failures_total = 0
        self.server_full_total = 0
        self.last_failure: Exception | None = None
        self._quickest_seconds = math.inf
        self.generations = Generations(pool, self, self.physical, connect_arguments, configure)
        self.admission = Admission(
            pool.alias,
            self._dial,
            refusal=lambda cause: unreachable(pool.alias, cause, configuration),
            paused=lambda waited_seconds: paused(pool.snapshot(), waited_seconds, configuration),
            answered_since=lambda moment: pool.answered_at > moment,
            opened=self._end_current,
        )
        self._pool = pool
        self._connect_arguments = connect_arguments
        self._on_server_full = on_server_full
        self._pace = SharedPace(orders, FULL_PACE_SECONDS)
        self._parked: list[ResilientConnection] = []

    def connection_opened(self, connection: ResilientConnection) -> None:
        """Count a physical connection."""
        self.opened_total += 1
        # The quickest says how far the server is; the others, how busy it was.
        self._quickest_seconds = min(self._quickest_seconds, connection.connect_seconds)
        connection.connect_seconds = self._quickest_seconds
        self.last_failure = None
        self.physical.add(connection)

    def connection_failed(self, generation: Generation, exception: Exception) -> None:
        """Count a failed attempt; with no connection left, those who wait are refused or wait for better times."""
        self._count_failure(exception)
        # What comes of an attempt that began before the generation was condemned is no news.
        if not generation.condemned and not self.has_connections(generation):
            self.admission.report_outage(exception)
            self.generations.condemn(generation, "the server cannot be reached", unreachable=True)

    def connection_closed(self, generation: Generation) -> None:
        """Give the room of a connection that outlived its generation to the current one."""
        if generation.condemned:
            self.generations.resize_for_survivors()

    def connection_overdue(self, generation: Generation, cause: Exception, *, is_server_silent: bool) -> None:
        """Give up a generation of which one connection never answered; ask whether the server answers at all."""
        self.generations.condemn(generation, "a statement was never answered")
        if is_server_silent:
            self.admission.report_suspicion(cause)

    def connection_silent(self) -> None:
        """Ask whether the server answers at all; those who come meanwhile need not find out one by one."""
        self.admission.report_suspicion(
            StatementOverdue(f"A statement has not been answered for {SUSPICIOUS_SECONDS:g} s or more.")
        )

    def _end_current(self) -> None:
        """Wake those who wait for a connection, since none will come back soon."""
        generation = self.generations.current
        if generation is not None:
            self.generations.condemn(generation, "the server cannot be reached", unreachable=True)

    def take_parked(self) -> ResilientConnection | None:
        """Hand over the connection that a probe has left, once."""
        try:
            return self._parked.pop()
        except IndexError:
            return None

    def has_connections(self, generation: Generation) -> bool:
        """Whether a generation can serve anybody; one whose holder has not noticed that it was cut does not count."""
        return any(not is_hung_up(connection) for connection in self.physical.usable(generation))

    def forget_threads(self) -> Generation | None:
        """In a forked child: hand over the current generation; nobody dials or waits here."""
        self.physical.forget_lock()
        self.admission.forget_threads()
        return self.generations.forget_threads()

    def _count_failure(self, exception: Exception) -> None:
        self.connect_failures_total += 1
        self.last_failure = exception
        if classify(exception).name in FULL:
            self.server_full_total += 1
            self._on_server_full()

    def _dial(self) -> None:
        """Connect, to find out whether that is possible; the connection is the first of the next generation."""
        known = self.admission.cause
        if known is not None and self.admission.meaning.name in FULL and not self._pace.take_turn():
            raise known.with_traceback(None)  # which would grow with each probe
        try:
            connection = ProbingConnection.connect(**self._connect_arguments())
        except Exception as exception:
            self._count_failure(exception)
            raise
        if known is not None:
            self._pace.clear()  # where one has found a slot the next may try at once
        self._parked.append(connection)
        generation = None if self.admission.is_paused else self.generations.open_if_wanted()
        if generation is not None:
            generation.begin()
        # There may be no need for it, or no room.
        unneeded = self.take_parked()
        if unneeded is not None:
            unneeded.close()
