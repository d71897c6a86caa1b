"""generations.py: at most one is current, and all together stay within max_size."""

from __future__ import annotations

import threading
import time
from typing import Any

import psycopg
import pytest
from django.db import connections

from dbresilience import AcquireTimeout, signals
from dbresilience.base import DatabaseWrapper
from dbresilience.generations import Generations
from tests.support.postgres import ThrowawayPostgres, wait_until

from .conftest import MakeWrapper, in_thread, pid_of


def generations_of(wrapper: DatabaseWrapper) -> Generations:
    pool = wrapper.resources.pool
    assert pool is not None
    return pool.generations


def test_there_is_none_before_it_is_needed_and_then_one(wrapper: DatabaseWrapper) -> None:
    """However many open it at once."""
    generations, opened = generations_of(wrapper), []
    assert generations.current is None
    barrier = threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        opened.append(generations.open(timeout=5))

    for thread in [in_thread(work) for _ in range(8)]:
        thread.join(10)
    assert len(opened) == 8
    assert set(opened) == {generations.current}
    assert generations.number == 1


def test_a_condemned_one_is_told_of_once_and_followed_by_another(wrapper: DatabaseWrapper) -> None:
    """The news of an older one says nothing about the next."""
    told: list[tuple[int, str]] = []

    def note(generation: int, reason: str, **_: Any) -> None:
        told.append((generation, reason))

    first = pid_of(wrapper)
    generations = generations_of(wrapper)
    old = generations.current
    assert old is not None
    signals.pool_condemned.connect(note)
    for reason in ("the test wants it", "again"):
        generations.condemn(old, reason)
    assert generations.current is None
    assert pid_of(wrapper) != first
    generations.condemn(old, "long ago")
    # What comes of an attempt that began before it was condemned is no news.
    recovery = wrapper.resources.pool.recovery  # type: ignore[union-attr]
    recovery.connection_failed(old, psycopg.OperationalError("made by the test"))
    assert recovery.admission.state == "closed"
    signals.pool_condemned.disconnect(note)
    assert told == [(1, "the test wants it")]
    assert generations.current is not None
    assert generations.current.number == 2


@pytest.mark.timed
def test_those_still_in_use_count(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """The next one is as small as they leave it, waits if they leave nothing, and grows as they end."""
    options = {"pool": {"max_size": 2, "timeout": 0.3}}
    holders = [make_wrapper(**options) for _ in range(2)]
    generations = generations_of(holders[0])
    with holders[0].pinned():
        with holders[1].pinned():
            assert generations.current is not None
            generations.condemn(generations.current, "the test wants it")
            with pytest.raises(AcquireTimeout):
                pid_of(make_wrapper(**options))
            assert generations.waiting_for_room == 0
            thread = in_thread(lambda: generations.open(timeout=5))
            wait_until(lambda: generations.waiting_for_room == 1, what="somebody who waits for room")
        thread.join(5)
        assert generations.current is not None
        assert generations.current.psycopg_pool.max_size == 1
        pid_of(make_wrapper(**options))
        assert postgres.backends(holders[0].settings_dict["NAME"]) <= 2
    wait_until(lambda: generations.current.psycopg_pool.max_size == 2)  # type: ignore[union-attr]


@pytest.mark.timed
def test_no_room_is_waited_for_no_longer_than_said(make_wrapper: MakeWrapper) -> None:
    """And the error has the numbers of the pool."""
    holder = make_wrapper(pool={"max_size": 1})
    generations = generations_of(holder)
    with holder.pinned():
        assert generations.current is not None
        generations.condemn(generations.current, "the test wants it")
        started = time.monotonic()
        with pytest.raises(AcquireTimeout, match=r"within 0\.2 s"):
            generations.open(timeout=0.2)
        assert 0.15 < time.monotonic() - started < 0.6


def test_one_that_is_being_cleaned_counts(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """It was given back, but its session is still there: the next generation has no room beside it."""
    holder = make_wrapper(pool={"max_size": 1})
    pool, leave = holder.resources.pool, threading.Event()
    assert pool is not None

    def use() -> None:
        mine = connections[holder.alias]
        with mine.pinned(), mine.cursor() as cursor:  # type: ignore[attr-defined]
            cursor.execute("SET search_path = public")
            leave.wait(10)

    thread = in_thread(use)
    wait_until(lambda: [lease.needs_reset for lease in pool.leases] == [True])
    postgres.freeze()
    leave.set()
    wait_until(lambda: not pool.leases)
    generation = pool.generations.current
    assert generation is not None
    assert pool.recovery.has_connections(generation)
    pool.generations.condemn(generation, "the test wants it")
    with pytest.raises(AcquireTimeout):
        pool.generations.open(timeout=0.2)
    postgres.thaw()
    thread.join(10)
    pool.generations.open(timeout=0)


def test_one_that_was_just_taken_counts_until_it_is_closed(make_wrapper: MakeWrapper) -> None:
    """Nobody has lent it yet; who waits for room is woken when it goes."""
    wrapper = make_wrapper(pool={"max_size": 1})
    generations = generations_of(wrapper)
    generation = generations.open(timeout=1)
    connection = generation.take(timeout=5)
    generations.condemn(generation, "the test wants it")
    with pytest.raises(AcquireTimeout):
        generations.open(timeout=0.2)
    thread = in_thread(lambda: generations.open(timeout=10))
    wait_until(lambda: generations.waiting_for_room == 1)
    generation.give_up(connection)
    thread.join(2)
    assert not thread.is_alive()


def test_a_probe_that_finds_no_room_is_nobody_who_timed_out(make_wrapper: MakeWrapper) -> None:
    """Nobody waited: no signal, no warning; the connection of the probe is closed."""
    holder = make_wrapper(pool={"max_size": 1})
    pool, told = holder.resources.pool, []
    assert pool is not None

    def note(**details: Any) -> None:
        told.append(details)

    with holder.pinned():
        assert pool.generations.current is not None
        pool.condemn(pool.generations.current, "the test wants it")
        signals.acquire_timed_out.connect(note)
        pool.recovery._dial()
        signals.acquire_timed_out.disconnect(note)
        assert pool.generations.current is None
    assert told == []


def test_who_takes_it_ends_it(wrapper: DatabaseWrapper) -> None:
    """Nobody gets a connection of it any more."""
    pid = pid_of(wrapper)
    generations = generations_of(wrapper)
    taken = generations.take()
    assert taken is not None
    assert taken.condemned
    assert generations.take() is None
    taken.close()
    assert pid_of(wrapper) != pid
