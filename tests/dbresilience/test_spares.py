"""generation.py: what was just given back is taken again at once, and nobody waits beside it."""

from __future__ import annotations

import threading
import time

from django.db import connections

from dbresilience.generation import SPARE_SECONDS
from tests.support.postgres import wait_until

from .conftest import MakeWrapper, in_thread, pid_of


def test_the_connection_given_back_last_is_taken_first(make_wrapper: MakeWrapper) -> None:
    """So a burst warms few sessions, and the others grow old."""
    wrapper = make_wrapper(pool={"max_size": 3})
    with wrapper.pinned():
        in_thread(lambda: pid_of(connections[wrapper.alias])).join()
        mine = pid_of(wrapper)
    assert {pid_of(wrapper) for _ in range(5)} == {mine}
    assert wrapper.resources.snapshot().idle == 2


def test_a_spare_returns_to_psycopgs_pool(make_wrapper: MakeWrapper) -> None:
    """There its age and idleness are looked at."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    generation = wrapper.resources.pool._generation  # type: ignore[union-attr]
    assert generation is not None
    assert generation.connections.get_stats()["pool_available"] == 0
    wait_until(lambda: generation.connections.get_stats()["pool_available"] == 1)
    assert wrapper.resources.snapshot().idle == 1


def test_nobody_waits_beside_a_spare(make_wrapper: MakeWrapper) -> None:
    """Eight threads hammer one connection for a second: each wait is short, none is forgotten."""
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 30})
    longest: list[float] = []
    ends = time.monotonic() + 1.0

    def hammer() -> None:
        mine, slowest = connections[wrapper.alias], 0.0
        while time.monotonic() < ends:
            started = time.monotonic()
            pid_of(mine)  # type: ignore[arg-type]
            slowest = max(slowest, time.monotonic() - started)
        longest.append(slowest)

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(longest) == 8
    # A forgotten one would wait until the spare is settled or until its time-out.
    assert max(longest) < SPARE_SECONDS
    assert wrapper.resources.snapshot().opened_total == 1


def test_a_closed_pool_keeps_no_spare(make_wrapper: MakeWrapper) -> None:
    """close_pool() ends the session that was given back a moment ago."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    (connection,) = wrapper.resources.pool.physical.all()  # type: ignore[union-attr]
    wrapper.close_pool()
    wait_until(lambda: connection.closed)


def test_a_check_of_the_users_own_runs_each_time(make_wrapper: MakeWrapper) -> None:
    """psycopg_pool's `check` and `reset` see every connection that comes or goes."""
    checked: list[object] = []
    returned: list[object] = []
    wrapper = make_wrapper(pool={"check": checked.append, "reset": returned.append})
    for _ in range(3):
        pid_of(wrapper)
    assert len(checked) == 3
    wait_until(lambda: len(returned) == 3)
