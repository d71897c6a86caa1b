"""units.py: what has stored something is not run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from dbresilience import (
    classify,
    retry,
)
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import run, settings_for
from tests.support.postgres import ThrowawayPostgres

from .conftest import Unit, end_session


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


def _copy(connection: Any) -> None:
    with connection.cursor() as cursor, cursor.copy("COPY kept FROM STDIN") as copy:
        copy.write_row((9, 0))


def _stream(connection: Any) -> None:
    with connection.cursor() as cursor:
        list(cursor.stream("INSERT INTO kept VALUES (9, 0) RETURNING id"))


def _psycopgs_transaction(connection: Any) -> None:
    with connection.transaction():
        connection.execute("INSERT INTO kept VALUES (9, 0)")


@pytest.mark.parametrize("store", [_copy, _stream, _psycopgs_transaction])
def test_what_psycopg_stores_by_itself(
    one: DatabaseWrapper, postgres: ThrowawayPostgres, store: Callable[[Any], None]
) -> None:
    """Past Django, outside its transactions."""
    unit = Unit(one, lambda: end_session(one, postgres))

    @retry(using=one.alias)
    def both() -> None:
        one.ensure_connection()
        store(one.connection)
        unit()

    with pytest.raises(OperationalError):
        both()
    assert unit.runs == 1


def test_an_inner_unit_stores_for_the_outer_one(one: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """What it has committed would be stored twice."""
    inner, outer = Unit(one, lambda: None), Unit(one, lambda: end_session(one, postgres))

    @retry(using=one.alias)
    def both() -> None:
        retry(inner, using=one.alias)()
        outer()

    with pytest.raises(OperationalError):
        both()
    assert (inner.runs, outer.runs, outer.value) == (1, 1, 1)


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


@pytest.mark.parametrize("has_begun", [True, False])
@pytest.mark.parametrize(("writes", "runs"), [(True, 1), (False, 2)])
def test_a_write_in_a_transaction_around_it_is_not_doubled(
    one: DatabaseWrapper, other: DatabaseWrapper, postgres: ThrowawayPostgres, writes: bool, runs: int, has_begun: bool
) -> None:
    """That transaction goes on, with what the unit wrote into it; what was there before does not matter."""

    def trouble() -> None:
        if writes:
            run(other, "INSERT INTO kept VALUES (8, 0)")
        end_session(one, postgres)

    unit = Unit(one, trouble)
    with transaction.atomic(using=other.alias):
        if has_begun:
            run(other, "INSERT INTO kept VALUES (9, 0)")
        try:
            retry(unit, using=one.alias)()
        except OperationalError as error:
            assert "transaction of" in " ".join(error.__notes__)  # noqa: PT017  # one of two cases
    assert unit.runs == runs
    assert run(one, "SELECT count(*) FROM kept WHERE id > 2") == [(has_begun + writes,)]


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

    with pytest.raises(OperationalError):
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
