"""pool.py: exhaustion, death and recovery, provoked on a real server."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from django.db import OperationalError

from dbresilience import AcquireTimeout, DatabaseUnavailable
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import TooManyWaiting
from tests.support.ports import free_port
from tests.support.postgres import ThrowawayPostgres, wait_until

from .conftest import MakeWrapper, pid_of


def in_threads(count: int, work: Callable[[], object]) -> list[BaseException]:
    """Run `work` in `count` threads at once and return what they raised."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return errors


@pytest.mark.timed
def test_an_exhausted_pool_says_its_numbers(make_wrapper: MakeWrapper) -> None:
    """The text names size, use and the setting to change."""
    pool = {"max_size": 1, "timeout": 0.2}
    holder = make_wrapper(pool=pool)
    pid_of(holder)
    asker = make_wrapper(pool=pool)
    with holder.pinned(), pytest.raises(AcquireTimeout) as caught:
        pid_of(asker)
    text = str(caught.value)
    assert "max_size 1, in use 1, idle 0" in text
    assert "within 0.2 s" in text
    assert "OPTIONS['pool']['max_size']" in text
    pid_of(asker)


def test_one_request_too_many_is_refused_at_once(make_wrapper: MakeWrapper) -> None:
    """max_waiting sheds load instead of letting it queue."""
    pool = {"max_size": 1, "timeout": 5, "max_waiting": 1}
    holder = make_wrapper(pool=pool)
    pid_of(holder)
    asker = make_wrapper(pool=pool)
    with holder.pinned():
        waiting = threading.Thread(target=lambda: pid_of(make_wrapper(pool=pool)))
        waiting.start()
        wait_until(lambda: asker.resources.snapshot().waiting == 1)
        with pytest.raises(TooManyWaiting, match="max_waiting 1"):
            pid_of(asker)
    waiting.join(5)


@pytest.mark.timed
def test_who_has_given_up_waiting_does_not_wait(make_wrapper: MakeWrapper) -> None:
    """Nobody is refused for the sake of those who were there before."""
    pool = {"max_size": 1, "timeout": 0.2, "max_waiting": 1}
    holder = make_wrapper(pool=pool)
    with holder.pinned():
        asker = make_wrapper(pool=pool)
        for _ in range(3):
            with pytest.raises(AcquireTimeout, match=r"within 0\.2 s.*waiting 0"):
                pid_of(asker)
        assert asker.resources.snapshot().waiting == 0


@pytest.mark.timed
def test_terminated_idle_connections_are_never_handed_out(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """Every idle backend is killed; the next twenty queries succeed, each at the first try."""
    wrapper = make_wrapper(pool={"max_size": 5, "min_size": 5})
    pid_of(wrapper)
    wait_until(lambda: wrapper.resources.snapshot().idle == 5)
    postgres.terminate_backends(wrapper.settings_dict["NAME"])
    wait_until(lambda: postgres.backends(wrapper.settings_dict["NAME"]) == 0)
    started = time.monotonic()
    assert not in_threads(20, lambda: pid_of(make_wrapper(pool={"max_size": 5, "min_size": 5})))
    assert time.monotonic() - started < 2
    assert wrapper.resources.snapshot().generation == 2


def test_one_death_condemns_idle_siblings_but_not_the_bound(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """Sessions of the old generation still in use count towards max_size."""
    options = {"pool": {"max_size": 3}}
    busy, victim, fresh = (make_wrapper(**options) for _ in range(3))
    with busy.pinned(), victim.pinned():
        doomed = pid_of(victim)
        postgres.execute(f"SELECT pg_terminate_backend({doomed}, 1000)")
        with pytest.raises(OperationalError):
            pid_of(victim)
        victim.close()
        pid_of(fresh)
        errors = in_threads(6, lambda: pid_of(make_wrapper(**options)))
        assert not errors
        assert fresh.resources.snapshot().size <= 3
    assert fresh.resources.snapshot().in_use == 0
    assert not in_threads(6, lambda: pid_of(make_wrapper(**options)))
    wait_until(lambda: postgres.backends(fresh.settings_dict["NAME"]) <= 3)


@pytest.mark.timed
def test_a_server_that_is_away_is_said_at_once_with_its_cause(make_wrapper: MakeWrapper) -> None:
    """No pool time-out: the waiting threads learn what the first attempt met."""
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/nothing"
    wrapper = make_wrapper(url=url)
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as caught:
        pid_of(wrapper)
    errors = in_threads(20, lambda: pid_of(make_wrapper(url=url)))
    assert time.monotonic() - started < 2
    assert len(errors) == 20
    assert all(isinstance(error, DatabaseUnavailable) for error in errors)
    assert isinstance(caught.value.__cause__, psycopg.OperationalError)


@pytest.mark.timed
def test_the_server_comes_back_and_so_does_the_pool(wrapper: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """Within a second of the server accepting, without anybody's help."""
    pid_of(wrapper)
    postgres.stop("immediate")
    for _ in range(5):
        with pytest.raises(OperationalError):
            pid_of(wrapper)
    postgres.start()
    started = time.monotonic()
    pid_of(wrapper)
    assert time.monotonic() - started < 1
    assert wrapper.resources.snapshot().in_use == 0


def test_a_kill_in_mid_query_costs_that_query_only(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """The thread that was running gets an error; the slot is free afterwards."""
    wrapper = make_wrapper(pool={"max_size": 1}, resilience={"retry_attempts": 1})
    pid_of(wrapper)
    failed: list[BaseException] = []

    def sleep() -> None:
        try:
            with make_wrapper(pool={"max_size": 1}, resilience={"retry_attempts": 1}).cursor() as cursor:
                cursor.execute("SELECT pg_sleep(20)")
        except OperationalError as error:
            failed.append(error)

    running = threading.Thread(target=sleep)
    running.start()
    wait_until(lambda: wrapper.resources.snapshot().in_use == 1)
    time.sleep(0.2)
    postgres.terminate_backends(wrapper.settings_dict["NAME"])
    running.join(5)
    assert len(failed) == 1
    pid_of(wrapper)


def test_close_pool_reopens_on_demand(wrapper: DatabaseWrapper) -> None:
    """Celery calls close_pool() after every task."""
    first = pid_of(wrapper)
    wrapper.close_pool()
    wrapper.close_pool()
    assert wrapper.resources.snapshot().size == 0
    assert pid_of(wrapper) != first


def test_addresses_stay_out_of_errors(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """libpq names host and address; logs and clients do not, unless asked."""
    port = free_port()
    wrapper = make_wrapper(url=f"postgresql://nobody@localhost:{port}/nothing")
    with caplog.at_level("DEBUG"), pytest.raises(DatabaseUnavailable) as caught:
        pid_of(wrapper)
    said = caplog.text + str(caught.value) + str(caught.value.__cause__) + str(caught.value.__cause__.__cause__)
    assert "localhost" not in said
    assert "127.0.0.1" not in said
    outspoken = make_wrapper(url=f"postgresql://nobody@localhost:{port}/nothing", resilience={"log_addresses": True})
    with caplog.at_level("DEBUG"), pytest.raises(DatabaseUnavailable):
        pid_of(outspoken)
    assert "127.0.0.1" in caplog.text
