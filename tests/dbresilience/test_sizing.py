"""sizing.py: what a generation may have is what the configuration says, whoever changes it at the same time."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from psycopg_pool import ConnectionPool, PoolTimeout

from dbresilience.conf import Configuration
from dbresilience.connection import ResilientConnection
from dbresilience.sizing import Sizing, sizes_beside

from .conftest import in_thread


@pytest.mark.parametrize(("survivors", "expected"), [(0, (2, 4)), (1, (2, 3)), (3, (1, 1)), (4, (1, 1))])
def test_older_generations_leave_less(survivors: int, expected: tuple[int, int]) -> None:
    """One at least, since psycopg_pool has no less."""
    configuration = Configuration.from_settings("a", {"OPTIONS": {"pool": {"min_size": 2, "max_size": 4}}}, debug=False)
    sizes = sizes_beside(survivors, configuration)
    assert (sizes["min_size"], sizes["max_size"]) == expected


class Interrupted(ConnectionPool[ResilientConnection]):
    """Lets something else happen between two changes of its size. Opens nothing."""

    meanwhile: Callable[[], None] | None = None
    after_look: Callable[[], None] | None = None

    def run_task(self, task: object) -> None:
        pass

    def get_stats(self) -> dict[str, int]:
        stats = super().get_stats()
        after_look, self.after_look = self.after_look, None
        if after_look is not None:
            after_look()
        return stats

    def resize(self, min_size: int, max_size: int | None = None) -> None:
        super().resize(min_size, max_size)
        meanwhile, self.meanwhile = self.meanwhile, None
        if meanwhile is not None:
            meanwhile()


def test_a_raise_is_not_lost_to_who_opens_more() -> None:
    """Both set the sizes of one pool: one for good, the other for a moment."""
    configuration = Configuration.from_settings("a", {"OPTIONS": {"pool": {"max_size": 4}}}, debug=False)
    pool = Interrupted(connection_class=ResilientConnection, open=False, **sizes_beside(1, configuration))
    sizing, threads = Sizing(pool, configuration, 1), []

    def raise_it() -> None:
        threads.append(in_thread(lambda: sizing.make_room_for(0, 0)))
        threads[0].join(0.3)

    pool.meanwhile = raise_it
    sizing.open_more()
    threads[0].join()
    assert (pool.min_size, pool.max_size) == (0, 4)
    assert pool.get_stats()["pool_size"] == 1


def test_who_asks_meanwhile_does_not_have_one_too_many_opened() -> None:
    """psycopg opens what min_size is raised by, whatever its size has become since somebody looked at it."""
    configuration = Configuration.from_settings("a", {"OPTIONS": {"pool": {"max_size": 2}}}, debug=False)
    pool = Interrupted(connection_class=ResilientConnection, open=False, **sizes_beside(0, configuration))
    pool.open()
    sizing = Sizing(pool, configuration, 0)
    sizing.open_more()

    def ask() -> None:
        with suppress(PoolTimeout):
            pool.getconn(0.01)  # psycopg begins to open one for it

    pool._growing = False  # as when the first is there
    pool.after_look = ask
    sizing.open_more()
    assert pool.get_stats()["pool_size"] == 2
    assert (pool.min_size, pool.max_size) == (0, 2)
    pool.close()
