"""retry.py: a whole unit runs again when its transaction was undone, and in no other case."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connections, transaction

from dbresilience import (
    CommitOutcomeUnknown,
    DatabaseUnavailable,
    deadline,
    retry,
    retrying,
)
from dbresilience.base import DatabaseWrapper
from dbresilience.repeating import delay_seconds
from tests.dbresilience.conftest import MakeWrapper, in_thread, run, works
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, Proxy

from .conftest import Unit, end_session


def test_a_lost_session(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    """Stored once; the hooks of the attempt that failed do not run."""
    unit = Unit(one, lambda: end_session(one, postgres))
    assert retry(unit, using=one.alias)(by=5) == "run 2"
    assert (unit.value, unit.hooks) == (5, [2])
    assert len(told) == 1
    assert told[0][0] == 1
    assert one.resources.snapshot().in_use == 0


def test_without_a_pool(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """And without a transaction, whose end would close it: the next attempt does not find the lost connection."""
    wrapper = make_wrapper(pool=False)
    runs: list[int] = []

    @retry(using=wrapper.alias)
    def read() -> object:
        runs.append(1)
        if len(runs) == 1:
            wrapper.ensure_connection()
            end_session(wrapper, postgres)
        return run(wrapper, "SELECT 1")

    assert read() == [(1,)]
    assert len(runs) == 2


def test_a_serialization_failure(make_wrapper: MakeWrapper, database_url: str, told: list[Any]) -> None:
    """Two that count on the same row: each of them is counted."""
    wrapper = make_wrapper(isolation_level=4)  # serializable
    run(wrapper, "CREATE TABLE kept (id int PRIMARY KEY, n int)")
    run(wrapper, "INSERT INTO kept VALUES (1, 0)")
    both = threading.Barrier(2)
    wrapper.inc_thread_sharing()

    @retry(using=wrapper.alias, attempts=10)
    def count() -> None:
        mine = connections[wrapper.alias]
        with transaction.atomic(using=wrapper.alias):
            ((n,),) = run(mine, "SELECT n FROM kept WHERE id = 1")
            if not both.broken and n == 0:
                both.wait(5)
            run(mine, "UPDATE kept SET n = %s WHERE id = 1", [int(str(n)) + 1])
        mine.close()

    threads = [in_thread(count), in_thread(count)]
    for thread in threads:
        thread.join()
    assert run(wrapper, "SELECT n FROM kept") == [(2,)]
    assert told == [(1, "serialization")]


def test_a_deadlock(one: DatabaseWrapper, told: list[Any]) -> None:
    """Two that take the same two locks in opposite order."""
    run(one, "ALTER DATABASE " + str(one.settings_dict["NAME"]) + " SET deadlock_timeout = '100ms'")
    one.close()
    one.resources.close()
    both = threading.Barrier(2)

    def move(first: int, second: int) -> None:
        mine = connections[one.alias]

        @retry(using=one.alias)
        def unit() -> None:
            with transaction.atomic(using=one.alias):
                run(mine, "UPDATE kept SET n = n + 1 WHERE id = %s", [first])
                if not told:
                    both.wait(5)
                run(mine, "UPDATE kept SET n = n + 1 WHERE id = %s", [second])

        unit()
        mine.close()

    threads = [in_thread(lambda: move(1, 2)), in_thread(lambda: move(2, 1))]
    for thread in threads:
        thread.join()
    assert run(one, "SELECT n FROM kept") == [(2,), (2,)]
    assert told == [(1, "serialization")]


def test_a_commit_that_has_not_happened(one: DatabaseWrapper, proxy: Proxy, told: list[Any]) -> None:
    """It was looked up, so it may go again."""
    unit = Unit(one, lambda: proxy.cut_when(is_commit, after=SEEN))
    assert retry(unit, using=one.alias)() == "run 2"
    assert (unit.value, unit.hooks) == (1, [2])
    assert told == [(1, "not_committed")]


def test_a_commit_that_has_happened(one: DatabaseWrapper, proxy: Proxy, told: list[Any]) -> None:
    """It was looked up, so it does not."""
    unit = Unit(one, lambda: proxy.cut_when(is_commit, after=ANSWERED))
    assert retry(unit, using=one.alias)() == "run 1"
    assert (unit.value, unit.hooks) == (1, [1])
    assert told == []


@pytest.mark.parametrize(("after", "runs"), [(SEEN, 2), (ANSWERED, 1)])
def test_a_unit_spends_a_round_trip_on_its_id_where_it_must(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, after: str, runs: int
) -> None:
    """Server-side binding sends one statement at a time."""
    wrapper = make_wrapper(url=proxy.url(database_url), server_side_binding=True)
    run(wrapper, "CREATE TABLE kept (id int PRIMARY KEY, n int)")
    run(wrapper, "INSERT INTO kept VALUES (1, 0)")
    unit = Unit(wrapper, lambda: proxy.cut_when(is_commit, after=after))
    assert retry(unit, using=wrapper.alias)() == f"run {runs}"
    assert unit.value == 1


def test_an_unknown_outcome_never_goes_again(one: DatabaseWrapper, proxy: Proxy, told: list[Any]) -> None:
    """Not even when the server, which has it stored, is back at once for the next attempt."""

    def trouble() -> None:
        proxy.cut_when(is_commit, after=ANSWERED, then=proxy.refuse)

    unit = Unit(one, trouble)
    with pytest.raises(CommitOutcomeUnknown), deadline(0.5):
        retry(unit, using=one.alias)()
    proxy.restore()
    assert (unit.runs, told) == (1, [])
    time.sleep(0.3)
    assert unit.value == 1


@pytest.mark.parametrize("is_refused", [True, False])
def test_an_outcome_stays_unknown_unless_another_attempt_finds_it_out(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, is_refused: bool
) -> None:
    """Whoever is told "unavailable" would take it for undone, and do it again."""
    wrapper = make_wrapper(url=proxy.url(database_url), resilience={"commit_lookup": False})
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    runs: list[int] = []

    @retry(using=wrapper.alias, idempotent=True)
    def unit() -> None:
        runs.append(1)
        with transaction.atomic(using=wrapper.alias):
            run(wrapper, "INSERT INTO kept VALUES (1)")

    proxy.cut_when(is_commit, after=ANSWERED, then=proxy.refuse if is_refused else None)
    with pytest.raises(CommitOutcomeUnknown if is_refused else IntegrityError):
        unit()
    assert len(runs) == 2
    proxy.restore()
    wait_until(lambda: works(wrapper))
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


def _in_use_between_attempts(wrapper: DatabaseWrapper, around: Any = None) -> list[int]:
    """How many connections are in use before the second of two attempts, taken in the signal's receiver's stead."""
    in_use: list[int] = []
    for attempt in retrying(using=wrapper.alias):
        if attempt.number > 1:
            in_use.append(wrapper.resources.snapshot().in_use)
        with attempt, transaction.atomic(using=wrapper.alias):
            if attempt.number == 1:
                run(wrapper, "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")
    return in_use


@pytest.mark.parametrize("lease", ["transaction", "request"])
def test_no_connection_is_held_between_attempts(make_wrapper: MakeWrapper, lease: str) -> None:
    """Not with a lease for the request either; but in pinned(), or with something left on the session, it must be."""
    wrapper = make_wrapper(resilience={"lease": lease})
    assert _in_use_between_attempts(wrapper) == [0]
    with wrapper.pinned():
        assert _in_use_between_attempts(wrapper) == [1]
    run(wrapper, "SET lock_timeout = '7s'")
    assert _in_use_between_attempts(wrapper) == [1]
    assert run(wrapper, "SHOW lock_timeout") == [("7s",)]


def test_attempts_come_to_an_end(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    """Three by default; the error of the last is raised as it is, with a note."""
    unit = Unit(one, lambda: end_session(one, postgres), times=9)
    with pytest.raises(OperationalError) as caught:
        retry(unit, using=one.alias)()
    assert unit.runs == 3
    assert told[-1] == (3, "it has run 3 times")
    assert "not run again by retry: it has run 3 times" in " ".join(caught.value.__notes__)
    assert (unit.value, unit.hooks) == (0, [])


def test_the_deadline_ends_them_too(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    unit = Unit(one, lambda: end_session(one, postgres), times=99)
    with pytest.raises(OperationalError), deadline(0.3):
        retry(attempts=99, using=one.alias)(unit)()
    assert 1 < unit.runs < 20


def test_delays_grow_and_are_drawn_by_lot() -> None:
    """Those who failed together do not come back together."""
    longest = [max(delay_seconds(attempt) for _ in range(500)) for attempt in (1, 2, 3, 9)]
    assert longest == sorted(longest)
    assert all(seconds <= limit for seconds, limit in zip(longest, (0.05, 0.1, 0.2, 1.0), strict=True))
    assert min(delay_seconds(9) for _ in range(500)) < 0.1


def test_other_errors_are_nobodys_business(one: DatabaseWrapper, told: list[Any]) -> None:
    """Mistakes of the program, and of its data."""

    def fail() -> None:
        run(one, "INSERT INTO kept VALUES (1, 1)")

    for trouble, error in ((fail, IntegrityError), (lambda: 1 / 0, ZeroDivisionError)):
        unit = Unit(one, trouble)
        with pytest.raises(error):
            retry(unit, using=one.alias)()
        assert unit.runs == 1
    assert told == []


def test_a_refusal_is_not_asked_for_again(one: DatabaseWrapper, proxy: Proxy, told: list[Any]) -> None:
    """The pool has waited as long as makes sense; asking again would make every 503 slower."""
    proxy.refuse()
    one.resources.close()
    unit = Unit(one, lambda: None)
    with pytest.raises(DatabaseUnavailable):
        retry(unit, using=one.alias)()
    assert (unit.runs, told) == (1, [])
