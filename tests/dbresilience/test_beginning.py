"""A transaction of atomic() takes its connection with its first cursor, and is one from there on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, InterfaceError, connections, transaction
from django.db.backends.signals import connection_created
from django.test.utils import CaptureQueriesContext

from dbresilience import AcquireTimeout, pinned
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, in_thread, run
from tests.support.postgres import ThrowawayPostgres

Greet = Callable[[Callable[[], object]], None]


@pytest.fixture
def greet(make_wrapper: MakeWrapper) -> Iterator[Greet]:
    """`greet(function)`: call it for each new connection."""
    receivers: list[Callable[..., object]] = []

    def connect(function: Callable[[], object]) -> None:
        def receiver(**kwargs: Any) -> None:
            function()

        receivers.append(receiver)
        connection_created.connect(receiver)

    yield connect
    for receiver in receivers:
        connection_created.disconnect(receiver)


def in_use(wrapper: DatabaseWrapper) -> int:
    return wrapper.resources.snapshot().in_use


def test_it_holds_nothing_before_its_first_cursor(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias):
        assert in_use(wrapper) == 0
        assert not wrapper.get_autocommit()
        run(wrapper, "SELECT 1")
        assert in_use(wrapper) == 1
    assert in_use(wrapper) == 0
    assert wrapper.get_autocommit()


def test_whoever_asks_for_the_connection_has_it(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias):
        wrapper.ensure_connection()
        assert not wrapper.connection.autocommit


def test_who_logs_queries_sees_begin_before_the_first_and_no_connection_before_that(wrapper: DatabaseWrapper) -> None:
    """So what goes wrong in production without a connection goes wrong in development, too."""
    run(wrapper, "SELECT 0")  # with what a new connection is asked
    wrapper.force_debug_cursor = True
    wrapper.queries_log.clear()
    with transaction.atomic(using=wrapper.alias):
        assert wrapper.connection is None
        run(wrapper, "SELECT 1")
        with CaptureQueriesContext(wrapper) as captured:
            run(wrapper, "SELECT 2")
    with transaction.atomic(using=wrapper.alias), CaptureQueriesContext(wrapper) as captured_first:
        run(wrapper, "SELECT 3")
    assert [query["sql"] for query in wrapper.queries_log] == [
        *("BEGIN", "SELECT 1", "SELECT 2", "COMMIT"),
        *("BEGIN", "SELECT 3", "COMMIT"),
    ]
    assert (len(captured), len(captured_first)) == (1, 1)
    wrapper.force_debug_cursor = False


def test_an_empty_one_takes_none_and_runs_its_hooks(wrapper: DatabaseWrapper) -> None:
    ran: list[int] = []
    with transaction.atomic(using=wrapper.alias), transaction.atomic(using=wrapper.alias, savepoint=False):
        wrapper.on_commit(lambda: ran.append(1))
    assert ran == [1]
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=wrapper.alias):
        wrapper.on_commit(lambda: ran.append(2))
        raise ZeroDivisionError
    assert ran == [1]
    assert wrapper.resources.snapshot().opened_total == 0


def test_a_savepoint_is_a_first_statement(wrapper: DatabaseWrapper) -> None:
    run(wrapper, "CREATE TABLE kept (n int)")
    with transaction.atomic(using=wrapper.alias):
        with pytest.raises(ZeroDivisionError), transaction.atomic(using=wrapper.alias):
            run(wrapper, "INSERT INTO kept VALUES (1)")
            raise ZeroDivisionError
        run(wrapper, "INSERT INTO kept VALUES (2)")
    assert run(wrapper, "SELECT n FROM kept") == [(2,)]


def test_a_pin_within_it_keeps_its_connection(wrapper: DatabaseWrapper) -> None:
    with transaction.atomic(using=wrapper.alias), pinned(using=wrapper.alias):
        assert not wrapper.connection.autocommit
        run(wrapper, "SELECT 1")


def test_what_borrows_the_connection_leaves_it(wrapper: DatabaseWrapper, make_wrapper: MakeWrapper) -> None:
    """Django closes one that was not there before; this one is the transaction's."""
    run(wrapper, "CREATE TABLE kept (n int)")
    fresh = make_wrapper()  # what another thread has, and does not know the server's version yet
    with transaction.atomic(using=fresh.alias):
        assert fresh.features.is_postgresql_15 in (True, False)  # as JSONObject asks
        run(fresh, "INSERT INTO kept VALUES (1)")
    assert run(fresh, "SELECT n FROM kept") == [(1,)]
    with fresh.temporary_connection():
        pass
    assert in_use(fresh) == 0


def test_in_a_coroutine_it_is_refused_before_its_block_runs(wrapper: DatabaseWrapper) -> None:
    """The half of the block before its first query may have done something, also in another thread."""
    entered: list[int] = []

    async def work() -> None:
        with transaction.atomic(using=wrapper.alias):
            entered.append(1)

    with pytest.raises(SynchronousOnlyOperation):
        asyncio.run(work())
    assert entered == []
    assert wrapper.get_autocommit()


@pytest.mark.parametrize("options", [{}, {"lease": "request"}])
def test_receivers_of_connection_created_are_outside_of_it(
    make_wrapper: MakeWrapper, greet: Greet, options: dict[str, Any]
) -> None:
    """They may begin a transaction of their own, as they may on Django's backend; what they store is stored."""
    wrapper = make_wrapper(**options)
    run(wrapper, "CREATE TABLE kept (n int)")
    ran: list[str] = []

    def receiver() -> None:
        assert not connections[wrapper.alias].in_atomic_block
        with transaction.atomic(using=wrapper.alias):
            run(wrapper, "INSERT INTO kept VALUES (0)")
            wrapper.on_commit(lambda: ran.append("receiver"))

    greet(receiver)
    wrapper.close()
    wrapper.resources.pool.recycle()  # type: ignore[union-attr]  # it has one
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=wrapper.alias):
        wrapper.on_commit(lambda: ran.append("transaction"))
        run(wrapper, "INSERT INTO kept VALUES (1)")
        assert wrapper.in_atomic_block
        raise ZeroDivisionError
    assert ran == ["receiver"]
    assert run(wrapper, "SELECT n FROM kept") == [(0,)]


def test_so_are_those_of_a_connection_in_place_of_a_dead_one(
    wrapper: DatabaseWrapper, greet: Greet, postgres: ThrowawayPostgres
) -> None:
    run(wrapper, "CREATE TABLE kept (n int)")
    ran: list[str] = []

    def receiver() -> None:
        assert not connections[wrapper.alias].in_atomic_block
        with suppress(ZeroDivisionError), transaction.atomic(using=wrapper.alias):
            wrapper.on_commit(lambda: ran.append("receiver"))
            run(wrapper, "INSERT INTO kept VALUES (0)")
            raise ZeroDivisionError

    with transaction.atomic(using=wrapper.alias):
        wrapper.on_commit(lambda: ran.append("transaction"))
        with wrapper.cursor() as cursor:
            postgres.execute(f"SELECT pg_terminate_backend({wrapper.connection.backend_pid})")
            time.sleep(0.1)
            greet(receiver)
            cursor.execute("INSERT INTO kept VALUES (1)")
        assert wrapper.in_atomic_block
        assert not wrapper.needs_rollback
    assert ran == ["transaction"]
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


def test_a_receiver_that_closes_the_connection_is_told_of(wrapper: DatabaseWrapper, greet: Greet) -> None:
    """And nobody who has that connection next is in a transaction for it."""
    run(wrapper, "CREATE TABLE kept (n int)")
    closes = [True]
    greet(lambda: wrapper.close() if closes else None)
    wrapper.resources.recycle()
    for _ in range(2):  # it is greeted again
        with pytest.raises(InterfaceError, match="receiver of connection_created"), transaction.atomic(wrapper.alias):
            run(wrapper, "SELECT 1")
        with pytest.raises(InterfaceError, match="receiver of connection_created"):
            run(wrapper, "SELECT 1")
    closes.clear()
    assert in_use(wrapper) == 0
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (1)")
    wrapper.close()
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


def test_whoever_goes_on_after_a_connection_that_could_not_begin_is_still_in_a_transaction(
    wrapper: DatabaseWrapper, greet: Greet
) -> None:
    run(wrapper, "CREATE TABLE kept (n int)")
    left_open = [True]

    def receiver() -> None:
        if left_open.pop():
            wrapper.connection.execute("BEGIN")
        left_open.append(False)

    greet(receiver)
    wrapper.resources.pool.recycle()  # type: ignore[union-attr]  # it has one
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=wrapper.alias):
        with pytest.raises((DatabaseError, psycopg.Error)):
            run(wrapper, "INSERT INTO kept VALUES (1)")
        run(wrapper, "INSERT INTO kept VALUES (2)")
        raise ZeroDivisionError
    assert run(wrapper, "SELECT n FROM kept") == []
    assert in_use(wrapper) == 0


@pytest.mark.timed
def test_so_is_whoever_goes_on_when_one_is_free_again(make_wrapper: MakeWrapper) -> None:
    wrapper, other = (make_wrapper(pool={"max_size": 1, "timeout": 0.2}) for _ in range(2))
    run(other, "CREATE TABLE kept (n int)")
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=other.alias):
        with wrapper.cursor(), pytest.raises(AcquireTimeout):
            run(other, "INSERT INTO kept VALUES (1)")
        run(other, "INSERT INTO kept VALUES (2)")
        raise ZeroDivisionError
    assert run(wrapper, "SELECT n FROM kept") == []


def test_a_server_that_comes_back_before_the_first_statement_was_never_missed(
    wrapper: DatabaseWrapper, postgres: ThrowawayPostgres
) -> None:
    run(wrapper, "SELECT 1")
    with transaction.atomic(using=wrapper.alias):
        postgres.restart()
        assert run(wrapper, "SELECT 1") == [(1,)]


def test_who_closes_it_before_it_begins_has_closed_nothing(wrapper: DatabaseWrapper) -> None:
    ran: list[int] = []
    with transaction.atomic(using=wrapper.alias):
        wrapper.on_commit(lambda: ran.append(1))
        wrapper.close()
        assert run(wrapper, "SELECT 1") == [(1,)]
        assert not wrapper.connection.autocommit
    assert ran == [1]


def test_each_thread_begins_its_own(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_size": 1})
    with transaction.atomic(using=wrapper.alias):
        # It would wait for ever for a connection that this thread held.
        in_thread(lambda: run(connections[wrapper.alias], "SELECT 1")).join(5)
        assert run(wrapper, "SELECT 1") == [(1,)]
