"""spares.py: whoever stands in line has the next connection, also where that comes by another way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
from django.db import connections

from dbresilience import spares
from dbresilience.base import DatabaseWrapper
from dbresilience.generation import Generation
from tests.support.postgres import ThrowawayPostgres, wait_until

from .conftest import MakeWrapper, in_thread, pid_of

LONG_SECONDS = 20.0


@pytest.fixture(autouse=True)
def long_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is forgotten stands there for longer than a test waits."""
    monkeypatch.setattr(spares, "LINE_SECONDS", LONG_SECONDS)
    monkeypatch.setattr(spares, "SPARE_SECONDS", LONG_SECONDS)


def had_while_waiting(wrapper: DatabaseWrapper, meanwhile: Callable[[], object] = lambda: None) -> int:
    """The session that another thread gets, which asks while the only one is lent; the lease ends after `meanwhile`."""
    pids: list[int] = []
    with wrapper.pinned():
        asking = in_thread(lambda: pids.append(pid_of(connections[wrapper.alias])))  # type: ignore[arg-type]
        wait_until(lambda: current(wrapper)._spares.standing == 1)
        meanwhile()
    asking.join(LONG_SECONDS / 2)
    assert pids, "it was forgotten in the line"
    return pids[0]


def current(wrapper: DatabaseWrapper) -> Generation:
    generation = wrapper.resources.pool.generations.current  # type: ignore[union-attr]
    assert generation is not None
    return generation


@pytest.fixture
def one(make_wrapper: MakeWrapper) -> DatabaseWrapper:
    wrapper = make_wrapper(pool={"max_size": 1})
    pid_of(wrapper)
    return wrapper


def test_it_is_the_one_that_was_given_back(one: DatabaseWrapper) -> None:
    """And at once, not by way of psycopg's pool, where it would be put after a second."""
    mine = pid_of(one)
    asked = current(one).psycopg_pool.get_stats()["requests_num"]
    assert had_while_waiting(one) == mine
    assert current(one).psycopg_pool.get_stats()["requests_num"] == asked


def test_who_takes_a_spare_takes_the_call_for_it_back(one: DatabaseWrapper) -> None:
    line = current(one)._spares._line
    line.standing.append(object())  # somebody who has been called and has not run yet
    pid_of(one)
    assert not line._call.locked()
    with one.pinned():
        pid_of(one)
        assert line._call.locked()
    line.standing.pop()


def test_who_stands_in_line_is_told_of_as_waiting(one: DatabaseWrapper) -> None:
    waiting: list[int] = []
    had_while_waiting(one, lambda: waiting.append(one.resources.snapshot().waiting))
    assert waiting == [1]


def test_a_dead_one_is_replaced(one: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    mine = pid_of(one)

    def end() -> None:
        postgres.execute(f"SELECT pg_terminate_backend({mine})")
        wait_until(lambda: postgres.execute(f"SELECT 1 FROM pg_stat_activity WHERE pid = {mine}") == [])

    assert had_while_waiting(one, end) != mine


def test_a_discarded_one_is_replaced(one: DatabaseWrapper) -> None:
    """psycopg opens another, which does not come by way of the line."""
    mine = pid_of(one)

    def discard() -> None:
        assert one._lease is not None
        one._lease.discard = True

    assert had_while_waiting(one, discard) != mine


def test_after_a_recycle_it_is_a_new_one(one: DatabaseWrapper) -> None:
    mine = pid_of(one)
    assert had_while_waiting(one, one.resources.pool.recycle) != mine  # type: ignore[union-attr]


def test_it_may_come_back_by_way_of_psycopgs_pool(one: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """As each does once in a while, for its age to be looked at."""
    monkeypatch.setattr(spares, "SPARE_SECONDS", 0.0)
    assert had_while_waiting(one) == pid_of(one)


def test_an_old_one_is_kept_while_somebody_stands_in_line(one: DatabaseWrapper) -> None:
    with one.pinned():
        mine = pid_of(one)
        assert one.connection is not None
        one.connection.most_seconds = 1e-9
    standing = current(one)._spares._line.standing
    standing.append(None)
    current(one).settle()
    standing.pop()
    assert pid_of(one) == mine
    current(one).settle()
    assert pid_of(one) != mine


def test_nobody_is_sent_on_for_one_that_psycopgs_queue_waits_for(
    one: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spares, "LINE_SECONDS", 0.0)
    generation = current(one)
    line = generation._spares._line
    with one.pinned():
        pid_of(one)
        asking = in_thread(lambda: pid_of(connections[one.alias]))  # type: ignore[arg-type]
        wait_until(lambda: generation.psycopg_pool.get_stats()["requests_waiting"] == 1)
        line.standing.append(object())
        assert one._lease is not None
        one._lease.discard = True  # psycopg opens another, for its queue
    asking.join(LONG_SECONDS / 2)
    assert not asking.is_alive()
    assert line._sent_on == []


def test_who_passes_on_the_way_to_an_idle_connection_does_not_wait(one: DatabaseWrapper) -> None:
    current(one).settle()
    current(one)._spares._line.standing.append(object())
    assert one.resources.snapshot().waiting == 0


def test_where_each_is_reset_everybody_joins_psycopgs_queue(make_wrapper: MakeWrapper) -> None:
    """None lies there to be taken."""
    wrapper = make_wrapper(pool={"max_size": 1, "reset": lambda connection: None})
    with wrapper.pinned():
        pid_of(wrapper)
        asking = in_thread(lambda: pid_of(connections[wrapper.alias]))  # type: ignore[arg-type]
        wait_until(lambda: current(wrapper).psycopg_pool.get_stats()["requests_waiting"] == 1)
    asking.join(LONG_SECONDS / 2)
    assert not asking.is_alive()


@pytest.mark.timed
def test_nobody_stands_in_line_for_one_that_is_being_opened(make_wrapper: MakeWrapper) -> None:
    """psycopg counts those of min_size from the moment at which it begins to dial."""
    wrapper = make_wrapper(pool={"min_size": 2, "max_size": 2})
    started = time.monotonic()
    pid_of(wrapper)
    assert time.monotonic() - started < LONG_SECONDS / 4


def test_nobody_is_overtaken_for_ever(make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who gives a connection back and asks again at once may have it again, until the other joins psycopg's queue."""
    monkeypatch.setattr(spares, "LINE_SECONDS", 0.1)
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 10})
    pid_of(wrapper)
    line, done = current(wrapper)._spares._line, threading.Event()
    monkeypatch.setattr(line, "tell", lambda: None)  # it is never quick enough
    other = in_thread(lambda: (pid_of(connections[wrapper.alias]), done.set()))  # type: ignore[arg-type]
    ends = time.monotonic() + LONG_SECONDS
    while not done.is_set() and time.monotonic() < ends:
        pid_of(wrapper)
    assert done.is_set()
    other.join()
