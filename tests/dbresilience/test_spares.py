"""generation.py: what was just given back is taken again at once, and nobody waits beside it."""

from __future__ import annotations

import threading
import time
from itertools import pairwise

import pytest
from django.db import OperationalError, connections
from psycopg_pool import ConnectionPool

from dbresilience import signals, spares
from dbresilience.connection import ResilientConnection
from dbresilience.deadlines import _allowance_of_request
from dbresilience.spares import SPARE_SECONDS
from tests.support.postgres import ThrowawayPostgres, wait_until

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
    generation = wrapper.resources.pool.generations.current  # type: ignore[union-attr]
    assert generation is not None
    assert generation.psycopg_pool.get_stats()["pool_available"] == 0
    wait_until(lambda: generation.psycopg_pool.get_stats()["pool_available"] == 1)
    assert wrapper.resources.snapshot().idle == 1


def test_one_thread_settles_until_nothing_comes_any_more(
    make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To start one for each second takes longer than the query that does it."""
    monkeypatch.setattr(spares, "SPARE_SECONDS", 0.2)
    monkeypatch.setattr(spares, "QUIET_TURNS", 3)
    wrapper = make_wrapper()

    def settling() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == f"dbresilience-{wrapper.alias}-settle"]

    for _ in range(2):
        pid_of(wrapper)
        [first] = settling()
        for _ in range(4):
            time.sleep(0.3)
            pid_of(wrapper)
            assert settling() == [first]
        wait_until(lambda: not settling())
    pid_of(wrapper)
    [last] = settling()
    wrapper.resources.close("the test ends")
    last.join(timeout=0.1)
    assert not last.is_alive()


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
    (connection,) = wrapper.resources.pool.recovery.physical.all()  # type: ignore[union-attr]
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


@pytest.mark.timed
def test_a_check_and_a_reset_may_query(make_wrapper: MakeWrapper) -> None:
    """The connection is nobody's then, and not a former holder's either; it is kept."""
    reset: list[object] = []

    def note(connection: ResilientConnection) -> None:
        reset.append(connection.execute("SELECT 1").fetchone())

    pool = {"check": ConnectionPool.check_connection, "reset": note, "timeout": 2, "max_size": 1}
    wrapper = make_wrapper(pool=pool)
    assert len({pid_of(wrapper) for _ in range(3)}) == 1
    wait_until(lambda: reset == [(1,)] * 3)


@pytest.mark.timed
def test_a_check_on_a_frozen_server_ends_with_the_request(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """It is a part of the wait for a connection."""
    wrapper = make_wrapper(pool={"check": ConnectionPool.check_connection}, resilience={"deadline_seconds": 0.5})
    pid_of(wrapper)
    postgres.freeze()
    started = time.monotonic()
    with _allowance_of_request(), pytest.raises(OperationalError):
        pid_of(wrapper)
    assert time.monotonic() - started < 1.5
    postgres.thaw()


def test_an_old_connection_is_replaced_before_it_goes(make_wrapper: MakeWrapper) -> None:
    """A request that asks all the time never finds less than one connection, and never waits for one."""
    wrapper = make_wrapper(pool={"max_size": 4, "max_lifetime": 2})
    first, waiting = pid_of(wrapper), 0
    closed: list[dict[str, object]] = []

    def receiver(sender: str, **details: object) -> None:
        closed.append(details)

    signals.connection_closed.connect(receiver)
    try:
        ends = time.monotonic() + 15
        while not closed and time.monotonic() < ends:
            pid_of(wrapper)
            assert wrapper.resources.snapshot().idle >= 1
            waiting = max(waiting, wrapper.resources.snapshot().waiting)
            time.sleep(0.01)
    finally:
        signals.connection_closed.disconnect(receiver)
    assert [(each["reason"], each["backend_pid"]) for each in closed] == [("max_lifetime", first)]
    assert waiting == 0
    assert pid_of(wrapper) != first


def test_old_connections_go_one_at_a_time(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """Four of one age are four reconnections in as many seconds."""
    wrapper = make_wrapper(pool={"max_size": 4, "max_lifetime": 1.5})
    together = threading.Barrier(4)

    def hold() -> None:
        with connections[wrapper.alias].pinned():  # type: ignore[attr-defined]
            together.wait(timeout=10)

    def hold_all() -> None:
        threads = [threading.Thread(target=hold) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    hold_all()
    generation = wrapper.resources.pool.generations.current  # type: ignore[union-attr]
    assert generation is not None
    wait_until(lambda: generation.psycopg_pool.get_stats()["pool_available"] == 4)
    retired: list[float] = []

    def note(reason: str, **details: object) -> None:
        if reason == "max_lifetime":
            retired.append(time.monotonic())

    signals.connection_closed.connect(note)
    time.sleep(1.5)
    hold_all()  # so that all four come back at once, and are old
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        with connections[wrapper.alias].pinned():  # type: ignore[attr-defined]
            pid_of(wrapper)
        time.sleep(0.005)
    assert wrapper.resources.snapshot().opened_total > 4
    assert len(retired) > 1
    # Not by how many are left: on a busy machine the successor of one may come after the next has gone.
    assert all(after - before > 0.5 for before, after in pairwise(retired))
