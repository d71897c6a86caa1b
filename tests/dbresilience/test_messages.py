"""messages.py: BEGIN travels with the first statement, and nobody but the network sees it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import psycopg
import pytest
from django.db import DatabaseError, ProgrammingError, connections, transaction
from django.db.backends.postgresql.base import DatabaseWrapper as DjangosWrapper

from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, run, settings_for
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy

STATEMENTS = [
    "SELECT 1 AS one",
    "SELECT 1; SELECT 2, 3",
    "SELECT 1 -- ; a comment",
    "",
    "-- nothing",
    ";",
    "SAVEPOINT s",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    "INSERT INTO kept VALUES (7), (8)",
    "INSERT INTO kept VALUES (7) RETURNING n",
    "INSERT INTO kept VALUES (1)",
    "INSERT INTO kept VALUES ('no number')",
    "UPDATE kept SET n = nowhere",
    "SELECT\n  *\nFROM\n  nowhere",
    "SELECT 1/0",
    "SELCT 1",
    "SELECT 'never ends",
    "SELECT (1",
    "SELECT E'\\xff'",
    "COMMIT",
    "ROLLBACK",
    "BEGIN",
    "VACUUM kept",
    "SHOW transaction_isolation",
]


@pytest.fixture
def plain(database_url: str, django_db_blocker: Any) -> Iterator[DjangosWrapper]:
    wrapper = DjangosWrapper(settings_for(database_url), "plain")
    # The receivers of connection_created look it up by its alias.
    connections.settings["plain"], connections["plain"] = wrapper.settings_dict, wrapper
    with django_db_blocker.unblock():
        yield wrapper
        wrapper.close()
    del connections.settings["plain"], connections["plain"]


def what_it_does(wrapper: Any, statement: str) -> dict[str, Any]:
    """All that whoever executes `statement` first in a transaction can see of it."""
    wrapper.set_autocommit(False)
    try:
        with wrapper.cursor() as cursor:
            seen: dict[str, Any] = {}
            try:
                cursor.execute(statement)
            except DatabaseError as error:
                diagnostic = cast("psycopg.Error", error.__cause__).diag
                seen["error"] = type(error), str(error), diagnostic.sqlstate, diagnostic.statement_position
            else:
                seen["rows"] = []
                while True:
                    columns = [(column.name, column.type_code) for column in cursor.description or ()]
                    rows = cursor.fetchall() if columns else None
                    seen["rows"].append((columns, rows, cursor.rowcount, cursor.statusmessage))
                    if not cursor.nextset():
                        break
            seen["state"] = wrapper.connection.info.transaction_status.name
            seen["sent"] = cursor._query.query
        return seen
    finally:
        wrapper.rollback()
        wrapper.set_autocommit(True)


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_first_statement_does_what_it_does_on_djangos_backend(
    wrapper: DatabaseWrapper, plain: DjangosWrapper, statement: str
) -> None:
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY); INSERT INTO kept VALUES (1)")
    expected = what_it_does(plain, statement)
    assert what_it_does(wrapper, statement) == expected
    # What comes after another is sent as ever.
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


@pytest.fixture
def far(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> DatabaseWrapper:
    """A wrapper whose round trips are counted."""
    wrapper = make_wrapper(url=proxy.url(database_url))
    run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")
    return wrapper


def test_a_transaction_costs_no_round_trip_for_its_beginning(far: DatabaseWrapper, proxy: Proxy) -> None:
    before = proxy.round_trips
    with transaction.atomic(using=far.alias):
        run(far, "SELECT 1")
        run(far, "INSERT INTO kept VALUES (1)")
    assert proxy.round_trips - before == 3


def test_an_unreadable_statement_costs_what_it_must(far: DatabaseWrapper, proxy: Proxy) -> None:
    """BEGIN and the statement alone, since the transaction has to have begun and failed."""
    before = proxy.round_trips
    with pytest.raises(DatabaseError, match="syntax error"), transaction.atomic(using=far.alias):
        run(far, "SELCT 1")
    assert proxy.round_trips - before == 4  # the two together, each alone, ROLLBACK


def test_a_statement_that_failed_by_itself_is_not_sent_again(far: DatabaseWrapper, proxy: Proxy) -> None:
    run(far, "CREATE SEQUENCE numbers")
    before = proxy.round_trips
    with pytest.raises(DatabaseError, match="division by zero"), transaction.atomic(using=far.alias):
        run(far, "SELECT 1 / (nextval('numbers') - 1)")
    assert proxy.round_trips - before == 2
    assert run(far, "SELECT nextval('numbers')") == [(2,)]


def test_what_came_before_the_error_is_not_done_again(far: DatabaseWrapper) -> None:
    """The error's place is then counted from BEGIN on, which is better than to store a thing twice."""
    run(far, "CREATE TABLE often (n int)")
    far.set_autocommit(False)
    with pytest.raises(DatabaseError, match="LINE 2"):
        run(far, "INSERT INTO often VALUES (1); COMMIT; BEGIN; SELECT nowhere")
    far.rollback()
    far.set_autocommit(True)
    assert run(far, "SELECT count(*) FROM often") == [(1,)]


def test_copy_is_refused_as_psycopg_does(wrapper: DatabaseWrapper) -> None:
    with pytest.raises(DatabaseError, match="use copy"), transaction.atomic(using=wrapper.alias):
        run(wrapper, "COPY (SELECT 1) TO STDOUT")
    assert run(wrapper, "SELECT 1") == [(1,)]


@pytest.mark.parametrize("copy", ["COPY (SELECT 1) TO STDOUT", "COPY notes FROM STDIN"])
def test_and_takes_no_connection_with_it(make_wrapper: MakeWrapper, copy: str) -> None:
    """The session is in the midst of it: the next statement has another one, and a transaction is rolled back."""
    wrapper = make_wrapper(pool={"max_size": 1})
    run(wrapper, "CREATE TABLE notes (id int)")
    with pytest.raises(ProgrammingError):
        run(wrapper, copy)
    assert wrapper.resources.snapshot().in_use == 0
    assert run(wrapper, "SELECT 2") == [(2,)]
    with pytest.raises(ProgrammingError), transaction.atomic(using=wrapper.alias):
        run(wrapper, "INSERT INTO notes VALUES (1)")
        run(wrapper, copy)
    assert run(wrapper, "SELECT * FROM notes") == []
    assert wrapper.resources.snapshot().in_use == 0


def test_the_isolation_level_is_that_of_the_settings(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(isolation_level=psycopg.IsolationLevel.SERIALIZABLE)
    with transaction.atomic(using=wrapper.alias):
        assert run(wrapper, "SHOW transaction_isolation") == [("serializable",)]


def test_a_beginning_that_is_refused_is_no_transaction(wrapper: DatabaseWrapper) -> None:
    """The server refuses BEGIN itself: its error, and nothing is begun."""
    with wrapper.pinned():
        wrapper.connection.set_deferrable(True)
        wrapper.connection.set_isolation_level(psycopg.IsolationLevel.SERIALIZABLE)
        with transaction.atomic(using=wrapper.alias):
            assert run(wrapper, "SHOW transaction_deferrable") == [("on",)]
        wrapper.connection._begin_statement = b"BEGIN ISOLATION LEVEL NONE"
        wrapper.set_autocommit(False)
        with pytest.raises(DatabaseError, match="NONE"):
            run(wrapper, "SELECT 1")
        assert wrapper.connection.info.transaction_status.name == "IDLE"
        wrapper.connection.set_deferrable(None)
        wrapper.connection.set_isolation_level(None)
        wrapper.set_autocommit(True)


@pytest.mark.parametrize("options", [{"server_side_binding": True}, {"prepare_threshold": 0}])
def test_cursors_of_other_kinds_begin_as_psycopg_does(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, options: dict[str, Any]
) -> None:
    wrapper = make_wrapper(url=proxy.url(database_url), **options)
    run(wrapper, "SELECT 1")
    before = proxy.round_trips
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT %s", [1])
    assert proxy.round_trips - before >= 3


def test_a_pipeline_by_hand_begins_as_psycopg_does(wrapper: DatabaseWrapper) -> None:
    run(wrapper, "CREATE TABLE kept (n int)")
    with transaction.atomic(using=wrapper.alias):
        wrapper.ensure_connection()
        with wrapper.connection.pipeline(), wrapper.connection.cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (1)")
            cursor.execute("SELECT count(*) FROM kept")
            assert cursor.fetchone() == (1,)
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


def test_who_reads_the_servers_log_sees_begin_before_the_statement(
    wrapper: DatabaseWrapper, postgres: ThrowawayPostgres
) -> None:
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT 1")
        [(text,)] = postgres.execute(
            f"SELECT query FROM pg_stat_activity WHERE pid = {wrapper.connection.info.backend_pid}"
        )
    assert re.fullmatch(r"BEGIN;\nSELECT 1", text)
