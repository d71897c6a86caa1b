"""retry.py: a whole unit runs again when its transaction was undone, and in no other case."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.test import TestCase

from dbresilience import (
    CommitOutcomeUnknown,
    DatabaseUnavailable,
    RetryInsideTransaction,
    classify,
    deadline,
    no_retries,
    retry,
    retrying,
    signals,
)
from dbresilience.base import DatabaseWrapper
from dbresilience.repeating import delay_seconds
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, Proxy

from .conftest import MakeWrapper, in_thread, run, settings_for


@pytest.fixture
def one(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> DatabaseWrapper:
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 4})
    run(wrapper, "CREATE TABLE kept (id int PRIMARY KEY, n int)")
    run(wrapper, "INSERT INTO kept VALUES (1, 0), (2, 0)")
    return wrapper


@pytest.fixture
def told() -> Iterator[list[Any]]:
    """What the two signals said, in order."""
    seen: list[Any] = []

    def repeated(attempt: int, classification: Any, **details: object) -> None:
        seen.append((attempt, str(classification)))

    def given_up(attempt: int, reason: str, **details: object) -> None:
        seen.append((attempt, reason))

    signals.unit_repeated.connect(repeated)
    signals.unit_given_up.connect(given_up)
    yield seen
    signals.unit_repeated.disconnect(repeated)
    signals.unit_given_up.disconnect(given_up)


def end_session(wrapper: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    assert wrapper.connection is not None
    postgres.execute(f"SELECT pg_terminate_backend({wrapper.connection.info.backend_pid})")
    time.sleep(0.1)


class Unit:
    """Adds one, in a transaction; `trouble` happens within it, in its first `times` attempts."""

    def __init__(self, wrapper: DatabaseWrapper, trouble: Callable[[], object], times: int = 1) -> None:
        self.wrapper, self.trouble, self.times = wrapper, trouble, times
        self.runs = 0
        self.hooks: list[int] = []

    def __call__(self, by: int = 1) -> str:
        self.runs += 1
        number = self.runs
        with transaction.atomic(using=self.wrapper.alias):
            self.wrapper.on_commit(lambda: self.hooks.append(number))
            run(self.wrapper, "UPDATE kept SET n = n + %s WHERE id = 1", [by])
            if number <= self.times:
                self.trouble()
            run(self.wrapper, "SELECT 1")
        return f"run {number}"

    @property
    def value(self) -> object:
        return run(self.wrapper, "SELECT n FROM kept WHERE id = 1")[0][0]


def test_a_lost_session(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    """Stored once; the hooks of the attempt that failed do not run."""
    unit = Unit(one, lambda: end_session(one, postgres))
    assert retry(unit, using=one.alias)(by=5) == "run 2"
    assert (unit.value, unit.hooks) == (5, [2])
    assert len(told) == 1
    assert told[0][0] == 1
    assert one.resources.snapshot().in_use == 0


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


# Something is stored already


def test_a_hook_that_fails_does_not_repeat_what_is_stored(
    one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]
) -> None:
    """Hooks run within atomic()'s exit, after COMMIT."""
    unit = Unit(one, lambda: None)

    def hook() -> None:
        with transaction.atomic(using=one.alias):
            run(one, "SELECT 1")
            end_session(one, postgres)
            run(one, "SELECT 1")

    unit.trouble = lambda: one.on_commit(hook)
    with pytest.raises(OperationalError) as caught:
        retry(unit, using=one.alias)()
    assert (unit.runs, unit.value) == (1, 1)
    assert told == [(1, "a part of it is stored already, which would be stored twice")]
    assert classify(caught.value).name in ("connection_lost", "shutting_down")


def test_two_transactions_in_one_unit(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    second = Unit(one, lambda: end_session(one, postgres))

    @retry(using=one.alias)
    def both() -> None:
        Unit(one, lambda: None)()
        second()

    with pytest.raises(OperationalError):
        both()
    assert (second.runs, second.value) == (1, 1)
    assert len(told) == 1


def test_a_write_outside_the_transaction(one: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    unit = Unit(one, lambda: end_session(one, postgres))

    @retry(using=one.alias)
    def both() -> None:
        run(one, "UPDATE kept SET n = n + 1 WHERE id = 2")
        unit()

    with pytest.raises(OperationalError):
        both()
    assert run(one, "SELECT n FROM kept WHERE id = 2") == [(1,)]


def test_another_database_counts_too(
    one: DatabaseWrapper, database_url: str, postgres: ThrowawayPostgres, told: list[Any]
) -> None:
    """atomic('a') within atomic('b'): the inner one is stored when the outer one fails."""
    other = DatabaseWrapper(settings_for(database_url), f"{one.alias}_other")
    connections.settings[other.alias] = other.settings_dict
    connections[other.alias] = other

    def trouble() -> None:
        with transaction.atomic(using=other.alias):
            run(other, "UPDATE kept SET n = n + 1 WHERE id = 2")
        end_session(one, postgres)

    unit = Unit(one, trouble)
    try:
        with pytest.raises(OperationalError):
            retry(unit, using=one.alias)()
    finally:
        other.close()
        other.resources.close()
        del connections.settings[other.alias]
        del connections[other.alias]
    assert unit.runs == 1
    assert told == [(1, "a part of it is stored already, which would be stored twice")]
    assert run(one, "SELECT n FROM kept ORDER BY id") == [(0,), (1,)]


@pytest.fixture
def other(one: DatabaseWrapper, database_url: str) -> Iterator[DatabaseWrapper]:
    """The same database by another alias."""
    other = DatabaseWrapper(settings_for(database_url), f"{one.alias}_other")
    connections.settings[other.alias] = other.settings_dict
    connections[other.alias] = other
    yield other
    other.close()
    other.resources.close()
    del connections.settings[other.alias]
    del connections[other.alias]


@pytest.mark.parametrize(("writes", "runs"), [(True, 1), (False, 2)])
def test_a_write_in_a_transaction_around_it_is_not_doubled(
    one: DatabaseWrapper, other: DatabaseWrapper, postgres: ThrowawayPostgres, writes: bool, runs: int
) -> None:
    """That transaction goes on, with what the unit wrote into it; what was there before does not matter."""

    def trouble() -> None:
        if writes:
            run(other, "INSERT INTO kept VALUES (8, 0)")
        end_session(one, postgres)

    unit = Unit(one, trouble)
    with transaction.atomic(using=other.alias):
        run(other, "INSERT INTO kept VALUES (9, 0)")
        try:
            retry(unit, using=one.alias)()
        except OperationalError as error:
            assert "transaction of" in " ".join(error.__notes__)  # noqa: PT017  # one of two cases
    assert unit.runs == runs
    assert run(one, "SELECT count(*) FROM kept WHERE id > 2") == [(1 + writes,)]


@pytest.mark.parametrize(
    "query",
    [
        "CALL store_and_fail()",
        "DO $$ BEGIN INSERT INTO kept VALUES (3, 0); COMMIT; RAISE EXCEPTION USING ERRCODE = '40001'; END $$",
        "BEGIN; INSERT INTO kept VALUES (3, 0); COMMIT; DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$",
    ],
)
def test_what_commits_within_itself_and_fails_is_stored(one: DatabaseWrapper, query: str) -> None:
    """Outside a transaction a procedure may commit; what it stored before it failed would be stored twice."""
    run(
        one,
        "CREATE PROCEDURE store_and_fail() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO kept VALUES (4, 0); COMMIT;"
        " RAISE EXCEPTION USING ERRCODE = '40001'; END $$",
    )
    runs = []

    @retry(using=one.alias)
    def unit() -> None:
        runs.append(1)
        run(one, query)

    with pytest.raises(OperationalError, match=""):
        unit()
    assert runs == [1]


def test_one_statement_that_fails_has_stored_nothing(one: DatabaseWrapper) -> None:
    """It is a transaction of its own, so it goes again."""
    run(
        one,
        "CREATE SEQUENCE times; CREATE FUNCTION fail_once() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('times') = 1 THEN RAISE EXCEPTION USING ERRCODE = '40001'; END IF; RETURN 3; END $$",
    )
    retry(run, using=one.alias)(one, "INSERT INTO kept VALUES (fail_once(), 0)")
    assert run(one, "SELECT count(*) FROM kept") == [(3,)]


def test_an_inner_units_last_word_is_the_last(
    one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]
) -> None:
    """Attempts do not multiply."""
    unit = Unit(one, lambda: end_session(one, postgres), times=99)
    with pytest.raises(OperationalError):
        retry(retry(unit, using=one.alias, attempts=2), using=one.alias, attempts=2)()
    assert unit.runs == 2


# Where it may stand


def test_within_a_transaction_it_says_why_not(one: DatabaseWrapper) -> None:
    unit = Unit(one, lambda: None)
    with pytest.raises(RetryInsideTransaction, match=r"outermost atomic.*non_atomic_requests"):
        with transaction.atomic(using=one.alias):
            retry(unit, using=one.alias)()
    assert unit.runs == 0
    one.set_autocommit(False)
    with pytest.raises(RetryInsideTransaction):
        retry(unit, using=one.alias)()
    one.set_autocommit(True)


def test_as_a_block(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    """The same, without a function."""
    numbers: list[int] = []
    for attempt in retrying(using=one.alias):
        with attempt, transaction.atomic(using=one.alias):
            numbers.append(attempt.number)
            run(one, "UPDATE kept SET n = n + 1 WHERE id = 1")
            if attempt.number == 1:
                end_session(one, postgres)
            run(one, "SELECT 1")
    assert numbers == [1, 2]
    assert run(one, "SELECT n FROM kept WHERE id = 1") == [(1,)]
    assert len(told) == 1


def test_a_block_that_succeeds_runs_once(one: DatabaseWrapper) -> None:
    numbers = []
    for attempt in retrying(using=one.alias):
        with attempt:
            numbers.append(attempt.number)
            continue
    assert numbers == [1]


def test_a_block_without_its_attempt_is_a_mistake(one: DatabaseWrapper) -> None:
    with pytest.raises(RuntimeError, match="with attempt, atomic"):
        for _ in retrying(using=one.alias):
            pass
    with pytest.raises(RetryInsideTransaction):
        for attempt in retrying(using=one.alias):
            with transaction.atomic(using=one.alias), attempt:
                pass


def test_no_retries(one: DatabaseWrapper, postgres: ThrowawayPostgres, told: list[Any]) -> None:
    unit = Unit(one, lambda: end_session(one, postgres))
    with pytest.raises(OperationalError), no_retries():
        retry(unit, using=one.alias)()
    assert (unit.runs, told) == (1, [])


@pytest.mark.parametrize("attempts", [0, -1, 1.5, True, "3"])
def test_impossible_attempts_are_refused(attempts: Any) -> None:
    with pytest.raises(ValueError, match="attempts is"):
        retry(attempts=attempts)
    with pytest.raises(ValueError, match="attempts is"):
        retrying(attempts=attempts)


def test_what_cannot_run_again_is_refused() -> None:
    """A coroutine or a generator returns before it has run."""

    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def both() -> Any:
        yield 1

    for function in (coroutine, generator, both):
        with pytest.raises(TypeError, match="cannot run the"):
            retry(function)
        with pytest.raises(TypeError, match=r"with no_retries\(\):"):
            no_retries()(function)


def test_it_looks_like_the_function_it_was() -> None:
    @retry
    def tidy(n: int) -> int:
        """Tidy up."""
        return n

    assert (tidy.__name__, tidy.__doc__) == ("tidy", "Tidy up.")


def test_both_are_logged(one: DatabaseWrapper, postgres: ThrowawayPostgres, caplog: pytest.LogCaptureFixture) -> None:
    unit = Unit(one, lambda: end_session(one, postgres), times=9)
    with caplog.at_level(logging.INFO, "dbresilience.connections"), pytest.raises(OperationalError):
        retry(unit, using=one.alias, attempts=2)()
    events = [getattr(record, "event", "") for record in caplog.records]
    assert (events.count("unit_repeated"), events.count("unit_given_up")) == (1, 1)


class WithinATestCase(TestCase):
    def test_it_simply_runs_once(self) -> None:
        """TestCase's own transaction is not the user's; its first error is the test's."""
        runs = []

        @retry
        def unit() -> None:
            runs.append(1)
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'x' USING ERRCODE = '40001'; END $$")

        with pytest.raises(OperationalError):
            unit()
        assert runs == [1]
        with pytest.raises(RetryInsideTransaction), transaction.atomic():
            unit()
