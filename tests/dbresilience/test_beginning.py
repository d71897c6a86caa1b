"""A transaction of atomic() takes its connection with its first cursor, and is one from there on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.db import DatabaseError, connections, transaction
from django.db.backends.signals import connection_created

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
    with transaction.atomic(using=wrapper.alias):
        wrapper.close()
        assert run(wrapper, "SELECT 1") == [(1,)]
        assert not wrapper.connection.autocommit


def test_each_thread_begins_its_own(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_size": 1})
    with transaction.atomic(using=wrapper.alias):
        # It would wait for ever for a connection that this thread held.
        in_thread(lambda: run(connections[wrapper.alias], "SELECT 1")).join(5)
        assert run(wrapper, "SELECT 1") == [(1,)]
