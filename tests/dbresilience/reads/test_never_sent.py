"""holding.py: a statement that never left goes on with another connection."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import DatabaseError, transaction

from dbresilience import DatabaseUnavailable
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.conftest import MakeWrapper, pid_of, run, works
from tests.support.postgres import wait_until
from tests.support.proxy import Proxy


def test_a_transaction_whose_connection_died_before_its_first_statement(
    one: DatabaseWrapper, terminate: Callable[[DatabaseWrapper], None]
) -> None:
    """atomic() took a connection, then somebody thought for a while. Nothing was sent yet: it may go elsewhere."""
    hooks: list[int] = []
    with transaction.atomic(using=one.alias):
        one.on_commit(lambda: hooks.append(1))
        terminate(one)
        run(one, "INSERT INTO kept VALUES (2)")
        with transaction.atomic(using=one.alias):
            run(one, "INSERT INTO kept VALUES (3)")
    assert hooks == [1]
    assert run(one, "SELECT n FROM kept ORDER BY n") == [(1,), (2,), (3,)]
    assert one.resources.snapshot().in_use == 0


def test_and_it_is_still_a_transaction(one: DatabaseWrapper, terminate: Callable[[DatabaseWrapper], None]) -> None:
    """What is undone is undone on the other connection, too."""
    with pytest.raises(ZeroDivisionError), transaction.atomic(using=one.alias):
        terminate(one)
        run(one, "INSERT INTO kept VALUES (2)")
        raise ZeroDivisionError
    assert run(one, "SELECT n FROM kept") == [(1,)]
    assert one.get_autocommit()


def test_a_write_on_a_cursor_that_has_waited(
    one: DatabaseWrapper, terminate: Callable[[DatabaseWrapper], None]
) -> None:
    """Outside a transaction; stored once."""
    with one.cursor() as cursor:
        cursor.execute("SELECT 1")
        terminate(one)
        cursor.execute("INSERT INTO kept VALUES (2)")
        terminate(one)
        cursor.executemany("INSERT INTO kept VALUES (%s)", [[3], [4]])
    assert run(one, "SELECT n FROM kept ORDER BY n") == [(1,), (2,), (3,), (4,)]


def test_with_one_lease_for_a_request(make_wrapper: MakeWrapper, terminate: Callable[[DatabaseWrapper], None]) -> None:
    """A connection that is kept between queries is looked at before each."""
    wrapper = make_wrapper(resilience={"lease": "request"})
    first = pid_of(wrapper)
    terminate(wrapper)
    run(wrapper, "CREATE TABLE kept (n int)")
    assert pid_of(wrapper) != first


def test_in_the_midst_of_a_transaction_it_is_lost(
    one: DatabaseWrapper, terminate: Callable[[DatabaseWrapper], None]
) -> None:
    """Its first half is undone; the second must not be stored alone."""
    with pytest.raises(DatabaseError), transaction.atomic(using=one.alias):
        run(one, "INSERT INTO kept VALUES (2)")
        terminate(one)
        run(one, "INSERT INTO kept VALUES (3)")
    assert run(one, "SELECT n FROM kept") == [(1,)]


def test_a_savepoint_begins_a_transaction(one: DatabaseWrapper, terminate: Callable[[DatabaseWrapper], None]) -> None:
    with pytest.raises(DatabaseError), transaction.atomic(using=one.alias), transaction.atomic(using=one.alias):
        terminate(one)
        run(one, "INSERT INTO kept VALUES (3)")
    assert run(one, "SELECT n FROM kept") == [(1,)]


def test_no_other_connection_can_be_had(
    one: DatabaseWrapper, proxy: Proxy, terminate: Callable[[DatabaseWrapper], None]
) -> None:
    """The block fails as a whole, with the reason, and its hooks do not run."""
    hooks: list[int] = []
    with pytest.raises(DatabaseUnavailable), transaction.atomic(using=one.alias):
        one.on_commit(lambda: hooks.append(1))
        proxy.refuse()
        terminate(one)
        run(one, "INSERT INTO kept VALUES (2)")
    proxy.restore()
    assert hooks == []
    wait_until(lambda: works(one))
    assert run(one, "SELECT n FROM kept") == [(1,)]
    assert one.get_autocommit()
    assert not one.in_atomic_block


def test_nothing_is_stored_in_a_block_that_has_lost_its_connection(
    one: DatabaseWrapper, proxy: Proxy, terminate: Callable[[DatabaseWrapper], None]
) -> None:
    """Who goes on within it, when the server is back, would store without a transaction."""
    with transaction.atomic(using=one.alias):
        proxy.refuse()
        terminate(one)
        with pytest.raises(DatabaseUnavailable):
            run(one, "INSERT INTO kept VALUES (2)")
        proxy.restore()
        time.sleep(0.3)
        with pytest.raises(DatabaseError):
            run(one, "INSERT INTO kept VALUES (3)")
    assert run(one, "SELECT n FROM kept") == [(1,)]
