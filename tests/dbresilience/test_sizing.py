"""sizing.py: what a generation may have is what the configuration says, whoever changes it at the same time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from psycopg_pool import ConnectionPool

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

    def run_task(self, task: object) -> None:
        pass

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
