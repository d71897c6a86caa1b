"""When connections are short or cannot be had: who waits for what, who is told what."""

from __future__ import annotations

import time

import psycopg
import pytest
from django.db import DataError, connections
from psycopg_pool import PoolTimeout

from dbresilience import AcquireTimeout, DatabaseUnavailable, classify
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import TooManyWaiting
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import SEEN, Proxy

from .conftest import MakeWrapper, in_thread, pid_of, works


@pytest.mark.timed
def test_connections_that_change_hands_are_no_outage(make_wrapper: MakeWrapper) -> None:
    """They are neither lent nor idle for a moment: the pool is busy, and the server is well."""
    wrapper = make_wrapper(pool={"max_size": 2, "timeout": 0.5})
    pool = wrapper.resources.pool
    assert pool is not None
    generation = pool.generations.open(timeout=1)
    on_their_way = [generation.take(timeout=5) for _ in range(2)]
    with pytest.raises(AcquireTimeout, match="became free") as caught:
        pid_of(wrapper)
    assert classify(caught.value).name == "pool_exhausted"
    assert "in use 0, idle 0, changing hands 2" in str(caught.value)
    thread = in_thread(lambda: pid_of(connections[wrapper.alias]))
    wait_until(lambda: pool.snapshot().queued == 1)
    for connection in on_their_way:
        generation.put_back(connection)
    thread.join(5)
    assert "changing hands" not in str(pool.snapshot())


def test_a_session_that_cannot_be_set_up_is_an_outage(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy
) -> None:
    """The server has taken the connection and says nothing more: nobody's fault but its own."""
    wrapper = make_wrapper(
        url=proxy.url(database_url),
        pool={"max_size": 1, "timeout": 0.5},
        resilience={"statement_timeout_seconds": 9},
    )
    proxy.cut_when(lambda message: "set_config" in message.sql, after=SEEN, how="swallow")
    with pytest.raises(AcquireTimeout, match="could not open") as caught:
        pid_of(wrapper)
    assert classify(caught.value).name == "cannot_connect"
    assert wrapper.resources.snapshot().queued <= 0


@pytest.mark.timed
def test_an_idle_transaction_does_not_hide_an_outage(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """Its holder has not noticed yet; everybody else is told at once."""
    holder = make_wrapper(pool={"timeout": 8})
    pid_of(holder)
    asker = make_wrapper(pool={"timeout": 8})
    with holder.pinned():
        postgres.stop("immediate")
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            pid_of(asker)
        assert time.monotonic() - started < 1
        postgres.start()
        pid_of(asker)


@pytest.mark.timed
def test_an_outage_that_is_over_is_no_cause(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """Who waits in vain afterwards is told of a pool that is too small, and of nothing else."""
    pool = {"max_size": 1, "timeout": 0.5}
    holder = make_wrapper(pool=pool)
    postgres.stop("immediate")
    with pytest.raises(DatabaseUnavailable):
        pid_of(holder)
    postgres.start()
    wait_until(lambda: works(holder), what="an answer")
    with holder.pinned(), pytest.raises(AcquireTimeout) as caught:
        pid_of(make_wrapper(pool=pool))
    assert isinstance(caught.value.__cause__, PoolTimeout)


@pytest.mark.timed
def test_a_session_that_cannot_be_set_up_is_no_riddle(make_wrapper: MakeWrapper) -> None:
    """A role that does not exist: at once, with the reason, and no session left behind."""
    wrapper = make_wrapper(assume_role="nope")
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as caught:
        pid_of(wrapper)
    assert time.monotonic() - started < 1
    assert isinstance(caught.value.__cause__, DataError | psycopg.Error)
    assert "nope" in str(caught.value.__cause__)
    del wrapper.settings_dict["OPTIONS"]["assume_role"]
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert cursor.fetchone() == (1,)


def test_those_who_wait_use_the_room_of_survivors(make_wrapper: MakeWrapper) -> None:
    """When connections of an older generation go, others may be opened for those who wait already."""
    pool = {"max_size": 2, "timeout": 5}
    wrappers = [make_wrapper(pool=pool) for _ in range(2)]
    pid_of(wrappers[0])
    for each in wrappers:
        each.ensure_connection()
    wrappers[0].resources.close()
    results: list[int] = []

    def ask() -> None:
        wrapper = connections[wrappers[0].alias]
        results.append(pid_of(wrapper))

    threads = [in_thread(ask) for _ in range(3)]
    time.sleep(0.3)
    assert wrappers[0].resources.snapshot().size == 2
    for each in wrappers:
        each.close()
    for thread in threads:
        thread.join(5)
    assert len(results) == 3


def test_two_configurations_of_one_alias_do_not_end_each_other(make_wrapper: MakeWrapper) -> None:
    """A thread with a cached time zone beside one with the new one."""
    first, second = make_wrapper(pool={"max_size": 1}), make_wrapper(pool={"max_size": 2})
    counts = [0, 0]
    until = time.monotonic() + 0.5

    def ask(wrapper: DatabaseWrapper, index: int) -> None:
        connections[wrapper.alias] = wrapper
        wrapper.inc_thread_sharing()
        while time.monotonic() < until:
            pid_of(wrapper)
            counts[index] += 1

    threads = [in_thread(lambda w=w, i=i: ask(w, i)) for i, w in enumerate((first, second))]  # type: ignore[misc]
    for thread in threads:
        thread.join(5)
    assert min(counts) > 50


def test_closing_psycopgs_pool_from_outside_is_survived(wrapper: DatabaseWrapper) -> None:
    """connection.pool is public in Django's backend, so people close it."""
    pid_of(wrapper)
    wrapper.pool.close()
    pid_of(wrapper)


def test_a_cold_burst_is_not_refused(make_wrapper: MakeWrapper) -> None:
    """max_waiting is about requests that wait for others, not for a connection being opened."""
    pool = {"max_size": 8, "max_waiting": 1}
    first = make_wrapper(pool=pool)
    refused: list[BaseException] = []

    def ask() -> None:
        try:
            pid_of(connections[first.alias])
        except TooManyWaiting as error:
            refused.append(error)

    threads = [in_thread(ask) for _ in range(8)]
    for thread in threads:
        thread.join(10)
    assert not refused


def test_a_thread_that_ended_gives_its_connection_back(make_wrapper: MakeWrapper) -> None:
    """Whoever needs it next takes it, rolled back."""
    pool = {"max_size": 1, "timeout": 2}
    first = make_wrapper(pool=pool)
    pid_of(first)

    def forget() -> None:
        connections[first.alias].ensure_connection()

    in_thread(forget).join()
    assert first.resources.snapshot().in_use == 1
    pid_of(first)
    assert first.resources.snapshot().in_use == 0


@pytest.mark.timed
def test_a_frozen_server_is_not_called_a_small_pool(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """The advice to raise max_size would be wrong."""
    wrapper = make_wrapper(pool={"timeout": 0.3})
    postgres.freeze()
    try:
        with pytest.raises(AcquireTimeout, match=r"could not open a connection within 0\.3 s") as caught:
            pid_of(wrapper)
    finally:
        postgres.thaw()
    assert "max_size'" not in str(caught.value)
    assert classify(caught.value).name == "cannot_connect"
