"""retry.py: where it may stand, and what it refuses."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
from django.db import OperationalError, connection, transaction
from django.test import TestCase

from dbresilience import (
    RetryInsideTransaction,
    no_retries,
    retry,
    retrying,
)
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import run
from tests.support.postgres import ThrowawayPostgres

from .conftest import Unit, end_session


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
