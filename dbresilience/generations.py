"""The succession of generations: opened on demand, condemned on proof of death, together within max_size."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, Protocol

from . import signals
from .conf import Configuration
from .connection import ResilientConnection
from .errors import AcquireTimeout
from .generation import Generation, GenerationObserver
from .physical import PhysicalConnections
from .signals import emit
from .snapshot import PoolSnapshot


class Owner(Protocol):
    """Whose generations and connections these are: the pool."""

    alias: str
    configuration: Configuration
    answered_at: float

    def snapshot(self) -> PoolSnapshot: ...

    def timed_out(self, waited_seconds: float) -> AcquireTimeout: ...


class Generations:
    """The generations of one pool, of which at most one is current.

    Args:
        pool: whose they are.
        observer: hears their news.
        physical: the connections of all of them.
        connect_arguments: returns those of `psycopg.connect`.
        configure: called with each new connection.
    """

    def __init__(
        self,
        pool: Owner,
        observer: GenerationObserver,
        physical: PhysicalConnections,
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
    ) -> None:
        self.current: Generation | None = None
        self.number = 0
        self.waiting_for_room = 0
        self.is_wanted = False
        """Whether anybody has asked for a connection since the pool was closed, paused or recycled last."""
        self._pool = pool
        self._observer = observer
        self._physical = physical
        self._connect_arguments = connect_arguments
        self._configure = configure
        self._room = threading.Condition()

    @property
    def _configuration(self) -> Configuration:
        return self._pool.configuration

    def open(self, timeout: float) -> Generation:
        """Return the current generation, a new one if there is none.

        Raises:
            AcquireTimeout: connections of older generations, still in use, leave no room for `timeout` seconds.
        """
        deadline = perf_counter() + timeout
        with self._room:
            while (found := self._current_or_next()) is None:
                self.waiting_for_room += 1
                try:
                    if not self._room.wait(timeout=deadline - perf_counter()):
                        raise self._pool.timed_out(timeout)
                finally:
                    self.waiting_for_room -= 1
        return self._told_of(*found)

    def open_if_wanted(self) -> Generation | None:
        """Return the current generation, a new one if there is none; None if nobody wants it or there is no room."""
        with self._room:
            found = self._current_or_next() if self.current is not None or self.is_wanted else None
        return None if found is None else self._told_of(*found)

    def _current_or_next(self) -> tuple[Generation, bool] | None:
        """Return the generation, and whether it is new. The caller holds `_room`."""
        if self.current is not None:
            return self.current, False
        # Sessions of an older generation still in use count towards max_size.
        survivors = self._physical.out_beside(None)
        if survivors >= self._configuration.max_size:
            return None
        self.number += 1
        self.current = Generation(self.number, self._observer, survivors, self._connect_arguments, self._configure)
        return self.current, True

    def _told_of(self, generation: Generation, is_new: bool) -> Generation:
        if is_new:
            sizes = {"max_size": self._configuration.max_size, "min_size": self._configuration.min_size}
            emit(signals.pool_opened, self._pool.alias, generation=generation.number, **sizes)
        return generation

    def condemn(self, generation: Generation, reason: str, *, unreachable: bool = False) -> None:
        """Give up all connections of `generation`: idle ones now, used ones on release."""
        with self._room:
            if generation.condemned:
                return
            generation.condemned = True
            if self.current is generation:
                self.current = None
        generation.close_soon()
        about = {"generation": generation.number, "reason": reason, "unreachable": unreachable}
        emit(signals.pool_condemned, self._pool.alias, **about)

    def resize_for_survivors(self) -> None:
        """Let the current generation grow as connections of older ones end."""
        with self._room:
            self._room.notify_all()
            generation = self.current
            if generation is not None:
                generation.make_room_for(self._physical.out_beside(generation))

    def take(self) -> Generation | None:
        """Give the current generation to the caller, who ends it."""
        with self._room:
            generation, self.current = self.current, None
            self.is_wanted = False  # a probe would open another, which nobody would close
            if generation is not None:
                generation.condemned = True
            return generation

    def open_no_more(self) -> Generation | None:
        """Let no probe open another until somebody asks for a connection; returns the current one."""
        with self._room:
            self.is_wanted = False
            return self.current

    def forget_threads(self) -> Generation | None:
        """In a forked child: hand over the current generation; nobody waits here."""
        self._room = threading.Condition()
        generation, self.current = self.current, None
        return generation
