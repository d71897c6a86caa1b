"""How many connections a generation may have, and how psycopg_pool is told to open some at once.

The sizes are always those of the configuration, less what older generations still use. They are set under a lock: who
wrote back what was read a moment ago would undo what somebody else has set meanwhile, for as long as the generation
lasts.
"""

from __future__ import annotations

import threading

from psycopg_pool import ConnectionPool

from .conf import Configuration
from .connection import ResilientConnection


def sizes_beside(survivors: int, configuration: Configuration) -> dict[str, int]:
    """Return `min_size` and `max_size` beside `survivors` of older generations."""
    max_size = max(1, configuration.max_size - survivors)
    return {"min_size": min(configuration.min_size, max_size), "max_size": max_size}


class Sizing:
    """Sets the sizes of one psycopg_pool.

    Args:
        psycopg_pool: has `sizes_beside(survivors, configuration)` already.
        configuration: the sizes that it is to have in the end.
        survivors: connections of older generations still in use.
    """

    def __init__(
        self, psycopg_pool: ConnectionPool[ResilientConnection], configuration: Configuration, survivors: int
    ) -> None:
        self._psycopg_pool = psycopg_pool
        self._configuration = configuration
        self._survivors = survivors
        self._lock = threading.Lock()

    def make_room_for(self, survivors: int, waiting: int) -> None:
        """Stay so small that with `survivors` of older generations the sum is max_size; connect for those waiting."""
        with self._lock:
            if survivors == self._survivors:
                return
            self._survivors = survivors
            self._psycopg_pool.resize(**sizes_beside(survivors, self._configuration))
            # Raising max_size alone connects nothing for those who wait already.
            self._open(waiting)

    def open_more(self, connections: int = 1) -> None:
        """Open so many connections at once, though nobody waits for them; none beyond max_size."""
        with self._lock:
            self._open(connections)

    def _open(self, connections: int) -> None:
        sizes = sizes_beside(self._survivors, self._configuration)
        least, most = sizes["min_size"], sizes["max_size"]
        wanted = min(connections, most - self._size, most - least)
        if wanted <= 0:
            return
        # psycopg opens what min_size is raised by, also beyond max_size. So that nobody who asks it for a connection
        # has it open one between the look at its size and that, it may not grow meanwhile.
        held = max(self._size, least, 1)
        self._psycopg_pool.resize(least, held)
        wanted = min(wanted, most - max(self._size, held))
        # A larger min_size connects at once; a larger max_size waits for demand.
        self._psycopg_pool.resize(least + wanted, most)
        self._psycopg_pool.resize(least, most)

    @property
    def _size(self) -> int:
        return self._psycopg_pool.get_stats()["pool_size"]
