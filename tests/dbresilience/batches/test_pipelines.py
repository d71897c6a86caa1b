"""pipelines.py: what travels together, and what is sent by whom."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from django.db import IntegrityError, ProgrammingError, connections, transaction
from django.db.models import F
from django.test.utils import CaptureQueriesContext

from dbresilience import pipeline
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.programs import key
from tests.dbresilience.batches.rows import create, names, owners
from tests.dbresilience.batches.tables import Owner, create_tables
from tests.dbresilience.conftest import MakeWrapper, in_thread, run
from tests.support.proxy import Proxy

# Round trips


def insert(wrapper: DatabaseWrapper, number: int, padding: int = 0) -> None:
    with wrapper.cursor() as cursor:
        query = f"INSERT INTO batches_owner VALUES (%s, %s, 0) --{'x' * padding}"
        cursor.execute(query, [key(number), str(number)])


def test_writes_cost_one_round_trip_with_begin_and_commit(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pipeline(using=far.alias):
        create(far, 1)
        owners(far).filter(pk=key(1)).update(points=F("points") + 2)
        owners(far).bulk_create([Owner(id=key(2), name="two"), Owner(id=key(3), name="three")])
    assert proxy.round_trips - before == 1
    assert names(far) == ["owner 1", "two", "three"]
    assert owners(far).get(pk=key(1)).points == 2
    assert far.resources.snapshot().in_use == 0


def test_nothing_costs_nothing(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pipeline(using=far.alias):
        pass
    assert proxy.round_trips == before


def test_a_read_takes_along_what_waits(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pipeline(using=far.alias):
        create(far, 1)
        assert owners(far).count() == 1
        create(far, 2)
    assert proxy.round_trips - before == 2


@pytest.mark.parametrize("ask", ["rowcount", "fetchall", "description", "statusmessage", "nextset"])
def test_who_asks_a_cursor_has_its_answer(far: DatabaseWrapper, proxy: Proxy, ask: str) -> None:
    with pipeline(using=far.alias), far.cursor() as cursor:
        before = proxy.round_trips
        cursor.execute("INSERT INTO batches_owner VALUES (%s, 'one', 0) RETURNING name", [key(1)])
        assert proxy.round_trips == before
        found = getattr(cursor, ask)
        found = found() if callable(found) else found
        assert proxy.round_trips == before + 1
        if ask == "description":
            found = [column.name for column in found]
    expected = {
        "rowcount": 1,
        "fetchall": [("one",)],
        "description": ["name"],
        "statusmessage": "INSERT 0 1",
        "nextset": None,
    }
    assert found == expected[ask]


def test_an_inner_block_is_sent_when_it_ends(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pipeline(using=far.alias):
        create(far, 1)
        with pytest.raises(IntegrityError), transaction.atomic(using=far.alias):
            create(far, 1)
        with pipeline(using=far.alias):
            create(far, 2)
        create(far, 3)
    assert proxy.round_trips - before == 4
    assert names(far) == ["owner 1", "owner 2", "owner 3"]


def test_a_decorated_function_is_one_too(far: DatabaseWrapper, proxy: Proxy) -> None:
    @pipeline(using=far.alias)
    def work(depth: int) -> None:
        create(far, depth)
        if depth:
            work(depth - 1)

    work(2)
    before = proxy.round_trips
    pipeline(using=far.alias)(lambda: create(far, 9))()
    assert proxy.round_trips - before == 1
    assert len(names(far)) == 4


def test_durable_is_that_of_atomic(ours: DatabaseWrapper) -> None:
    with pipeline(using=ours.alias), pytest.raises(RuntimeError, match="durable"):
        with pipeline(using=ours.alias, durable=True):
            pass


def test_a_loop_does_not_fill_the_memory(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with pipeline(using=far.alias):
        for number in range(2500):
            insert(far, number)
    assert proxy.round_trips - before < 10  # the server answers while it is sent more
    assert owners(far).count() == 2500
    before = proxy.round_trips
    with pipeline(using=far.alias):
        for number in range(3):
            insert(far, 5000 + number, padding=600_000)
    assert proxy.round_trips - before >= 2


# Where it cannot


@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 0}, {"pool": False}])
def test_other_settings_do_the_same(make_wrapper: MakeWrapper, options: dict[str, Any]) -> None:
    wrapper = make_wrapper(**options)
    create_tables(wrapper)
    _do_some_of_everything(wrapper)
    wrapper.close()


def test_djangos_own_backend_does_the_same(ours: DatabaseWrapper, plain: Any) -> None:
    _do_some_of_everything(plain)


def _do_some_of_everything(wrapper: Any) -> None:
    with pipeline(using=wrapper.alias):
        create(wrapper, 1)
        assert owners(wrapper).update(points=1) == 1
        with suppress(IntegrityError), transaction.atomic(using=wrapper.alias):
            create(wrapper, 1)
    with pytest.raises(IntegrityError), pipeline(using=wrapper.alias):
        create(wrapper, 2)
        create(wrapper, 2)
    with pytest.raises(IntegrityError), pipeline(using=wrapper.alias), wrapper.cursor() as cursor:
        cursor.execute("UPDATE batches_owner SET points = -1")
        cursor.rowcount  # an error of Django's, also here
    assert names(wrapper) == ["owner 1"]


def test_without_autocommit_it_is_a_part_of_what_is_open(ours: DatabaseWrapper) -> None:
    ours.set_autocommit(False)
    with pipeline(using=ours.alias):
        create(ours, 1)
    with pytest.raises(IntegrityError), pipeline(using=ours.alias):
        create(ours, 1)
    assert names(ours) == ["owner 1"]
    ours.rollback()
    ours.set_autocommit(True)
    assert names(ours) == []


def test_within_an_outer_block_it_is_a_part_of_that(far: DatabaseWrapper, proxy: Proxy) -> None:
    """As in a test case, whose transaction is never committed."""
    with transaction.atomic(using=far.alias):
        with pipeline(using=far.alias):
            create(far, 1)
            create(far, 2)
        with pytest.raises(IntegrityError), pipeline(using=far.alias):
            create(far, 3)
            create(far, 1)
        assert names(far) == ["owner 1", "owner 2"]
        far.set_rollback(True)
    assert names(far) == []


# What goes by itself


def test_what_is_no_text_goes_after_what_waits(ours: DatabaseWrapper) -> None:
    query = "INSERT INTO batches_owner VALUES (%s, %s, 0)"
    with pipeline(using=ours.alias):
        create(ours, 1)
        assert [owner.name for owner in owners(ours).iterator(chunk_size=1)] == ["owner 1"]
        create(ours, 2)
        with (
            ours.cursor() as cursor,
            cursor.copy("COPY (SELECT count(*) FROM batches_owner) TO STDOUT") as copy,
        ):
            assert b"".join(copy) == b"2\n"
        create(ours, 3)
        with ours.cursor() as cursor:
            assert list(cursor.stream("SELECT count(*) FROM batches_owner")) == [(3,)]
        create(ours, 4)
        with ours.cursor() as cursor:
            cursor.executemany(query, [(key(5), "five"), (key(6), "six")])
            assert cursor.rowcount == 2
        create(ours, 7)
        assert ours.connection.execute("SELECT count(*) FROM batches_owner").fetchone() == (7,)
        ours.connection.execute("DELETE FROM batches_owner WHERE name = 'six'")
        with ours.connection.pipeline(), ours.connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM batches_owner")
            cursor.execute(query, [key(8), "eight"])
        create(ours, 9)
        assert run(ours, "SELECT 1; SELECT count(*) FROM batches_owner") == [(1,)]
    assert owners(ours).count() == 8


def test_a_transaction_of_psycopgs_is_a_part_of_it(ours: DatabaseWrapper) -> None:
    """psycopg must not take it for the outermost one, which it would commit."""
    with pytest.raises(KeyError), pipeline(using=ours.alias):
        create(ours, 1)
        with ours.connection.transaction():
            create(ours, 2)
        raise KeyError
    assert names(ours) == []


def test_errors_of_what_waited_are_those_of_who_comes_next(ours: DatabaseWrapper) -> None:
    for ask in (
        lambda cursor: cursor.executemany("SELECT %s", [(1,), (2,)]),
        lambda cursor: cursor.execute("SELECT 1; SELECT 2"),
        lambda cursor: list(cursor.stream("SELECT 1")),
        lambda cursor: ours.connection.pipeline().__enter__(),
    ):
        with pytest.raises(IntegrityError), pipeline(using=ours.alias):
            create(ours, 1, points=-1)
            with ours.cursor() as cursor, ours.wrap_database_errors:
                ask(cursor)
        assert names(ours) == []
        assert ours.resources.snapshot().in_use == 0


def test_psycopgs_commit_takes_along_what_waits(ours: DatabaseWrapper) -> None:
    with suppress(KeyError), pipeline(using=ours.alias):
        create(ours, 1)
        ours.connection.commit()
        raise KeyError
    assert names(ours) == ["owner 1"]


def test_a_parameter_that_is_missing_is_the_same_error(ours: DatabaseWrapper) -> None:
    with pytest.raises(ProgrammingError, match=r"there is no parameter \$1"), pipeline(using=ours.alias):
        run(ours, "SELECT $1")


# Who looks on


def test_captured_queries_are_all_there(ours: DatabaseWrapper) -> None:
    with CaptureQueriesContext(ours) as captured, pipeline(using=ours.alias):
        create(ours, 1)
        owners(ours).update(points=1)
    assert [query["sql"][:6] for query in captured] == ["BEGIN", "INSERT", "UPDATE", "COMMIT"]
    assert "owner 1" in captured[1]["sql"]


def test_wrappers_of_execute_see_each_statement(ours: DatabaseWrapper) -> None:
    seen: list[str] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql.split()[0])
        return execute(sql, params, many, context)

    with ours.execute_wrapper(note), pipeline(using=ours.alias):
        create(ours, 1)
        with ours.cursor() as cursor:
            cursor.execute("SELECT 1")
            assert cursor.fetchone() == (1,)
    assert seen == ["INSERT", "SELECT"]


def test_threads_do_not_meet(ours: DatabaseWrapper) -> None:
    def work(first: int) -> None:
        for number in range(first, first + 20):
            with pipeline(using=ours.alias):
                connection = connections[ours.alias]
                create(connection, number)
                owners(connection).filter(pk=key(number)).update(points=F("points") + 1)
        connections[ours.alias].close()

    ours.inc_thread_sharing()
    threads = [in_thread(lambda first=first: work(first)) for first in (0, 100, 200)]  # type: ignore[misc]
    for thread in threads:
        thread.join()
    assert owners(ours).filter(points=1).count() == 60
    assert ours.resources.snapshot().in_use == 0
