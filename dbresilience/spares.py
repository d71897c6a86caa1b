"""Spares: connections given back a moment ago, taken again without the ceremony of psycopg's pool.

That ceremony costs as much as everything else in a lease. Whoever finds no spare joins psycopg's queue, and for a
moment before that a `line`, if all connections are out. Nobody waits beside a spare: who waits says so before looking
again, who gives back looks for waiting ones after giving back, so one of the two sees the other. (Append, pop and truth
of a list are atomic and seen in order wherever Python has its global lock.)

A connection stays out of psycopg's pool for `SPARE_SECONDS` at most, used or not. On its way back its age is
looked at: psycopg_pool would close an old connection and then open another, one or many at a time; here
another is opened first, and one goes at a time.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from time import monotonic

from psycopg_pool import ConnectionPool

from .conf import Configuration
from .connection import ResilientConnection
from .line import Line

SPARE_SECONDS = 1.0

QUIET_TURNS = 30
"""So often the thread that settles finds no spare before it ends: to start one takes longer than a query."""

LINE_SECONDS = 0.1
"""How long anybody stands in line before joining psycopg's queue, which is served first."""

LIFETIME_JITTER = 0.05
"""How much earlier than `max_lifetime` a connection may be retired, drawn once for each, as psycopg_pool does."""


class Spares:
    """The way into and out of one psycopg_pool.

    Args:
        psycopg_pool: where connections come from and return to.
        configuration: `max_lifetime`, `check`, `reset`.
        name: of the thread that settles.
        open_another: has psycopg_pool open one more connection.
    """

    def __init__(
        self,
        psycopg_pool: ConnectionPool[ResilientConnection],
        configuration: Configuration,
        name: str,
        open_another: Callable[[], None],
    ) -> None:
        self._psycopg_pool = psycopg_pool
        self._max_lifetime = configuration.max_lifetime
        self._name = name
        self._open_another = open_another
        # What psycopg is to look at whenever a connection comes or goes must not stay here.
        self._enabled = configuration.check is None and configuration.reset is None
        self._spares: list[ResilientConnection] = []
        self._waiting: list[None] = []
        self._line = Line(self._spares, self.take_spare)
        self._standing = self._line.standing  # looked at for each lease
        self._settles = False
        self._settles_lock = threading.Lock()
        self._closed = threading.Event()
        self._successor_asked_for = False
        self._retired_at = 0.0

    def __len__(self) -> int:
        return len(self._spares)

    def take_spare(self) -> ResilientConnection | None:
        """Return the connection that was given back last, if it is still here."""
        try:
            connection = self._spares.pop()
        except IndexError:
            return None
        connection.is_out = True
        if self._standing:
            self._line.tell()
        return connection

    @property
    def asking(self) -> int:
        """How many have found no spare and ask psycopg's pool."""
        return len(self._waiting)

    @property
    def standing(self) -> int:
        """How many stand in line before that; not those who pass it on their way to psycopg's pool."""
        return len(self._standing) if self._standing and self._are_all_out() else 0

    def take(self, timeout: float) -> ResilientConnection:
        """Return a connection, the one given back last if there is a spare.

        Raises:
            psycopg_pool.PoolTimeout: none became free within `timeout` seconds.
            psycopg_pool.PoolClosed: the pool was closed.
        """
        if self._enabled:
            began = monotonic()
            connection = self._line.wait(min(timeout, LINE_SECONDS), self._are_all_out)
            if connection is not None:
                return connection
            timeout = max(0.0, timeout - (monotonic() - began))
        self._waiting.append(None)
        try:
            connection = self.take_spare()
            if connection is None:
                connection = self._psycopg_pool.getconn(timeout)
                connection.seen_at = monotonic()
                connection.is_out = True
            return connection
        finally:
            self._waiting.pop()

    def _are_all_out(self) -> bool:
        """Whether there is nothing to wait for but what others give back."""
        stats = self._psycopg_pool.get_stats()
        return stats["pool_size"] >= self._psycopg_pool.max_size and not stats["pool_available"]

    def send_on(self) -> None:
        """Let one in line ask psycopg's pool, which has a connection, or will have one."""
        self._line.send_on()

    def put_back(self, connection: ResilientConnection) -> None:
        """Give a living connection back for whoever is next."""
        connection.is_out = False
        if not self._enabled or monotonic() - connection.seen_at > SPARE_SECONDS:
            self._return(connection)
            return
        self._spares.append(connection)
        if self._waiting or self._closed.is_set():
            self.settle()
        elif self._standing:
            self._line.tell()
        elif not self._settles:
            self._begin_to_settle()

    def settle(self) -> None:
        """Hand the spares to psycopg's pool, which serves those who wait and ends the idle."""
        while True:
            try:
                connection = self._spares.pop()
            except IndexError:
                return
            self._return(connection)

    def close(self) -> None:
        """Keep no spare from now on; after psycopg's pool was closed, so that they are closed, too."""
        self._closed.set()
        self.settle()
        self._line.end()

    def _begin_to_settle(self) -> None:
        with self._settles_lock:
            if self._settles:
                return
            self._settles = True
        try:
            threading.Thread(target=self._settle_again_and_again, name=self._name, daemon=True).start()
        except RuntimeError:  # the interpreter ends, or there can be no more threads
            self._settles = False
            self.settle()

    def _settle_again_and_again(self) -> None:
        quiet_turns = 0
        try:
            while quiet_turns < QUIET_TURNS and not self._closed.wait(SPARE_SECONDS):
                quiet_turns = 0 if self._spares else quiet_turns + 1
                self.settle()
        finally:
            self._settles = False  # before the last look, so that who comes after it begins anew
            self.settle()

    # Age

    def _return(self, connection: ResilientConnection) -> None:
        if not self._closed.is_set() and self._may_retire(connection):
            connection.end_reason = "max_lifetime"
            connection.close()  # psycopg opens another in its place
        self._psycopg_pool.putconn(connection)
        # Not if psycopg's queue has got it: whoever is sent there for nothing draws the next connection there, too, and
        # soon nobody is served here any more.
        if self._standing and self._psycopg_pool.get_stats()["pool_available"]:
            self.send_on()

    def _may_retire(self, connection: ResilientConnection) -> bool:
        """Whether a connection is old enough, and nobody will miss it."""
        if not connection.most_seconds:
            connection.most_seconds = self._max_lifetime * random.uniform(1 - LIFETIME_JITTER, 1)
        now = monotonic()
        if now - connection.opened_at < connection.most_seconds or now - self._retired_at < SPARE_SECONDS:
            return False
        stats = self._psycopg_pool.get_stats()
        if stats["requests_waiting"] or self._standing:
            return False
        if stats["pool_available"] or stats["pool_size"] >= self._psycopg_pool.max_size:
            self._retired_at = now
            self._successor_asked_for = False
            return True
        if not self._successor_asked_for:
            self._successor_asked_for = True
            self._open_another()
        return False
