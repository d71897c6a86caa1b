"""What careless or unusual code does to a lease: nothing is lost, nothing reaches another's session."""

from __future__ import annotations

import os
from contextlib import suppress

import psycopg
import pytest
from django.db import InternalError, OperationalError, connections, transaction

from dbresilience import classify
from dbresilience.base import DatabaseWrapper
from tests.support.postgres import wait_until

from .conftest import MakeWrapper, in_thread, pid_of


def numbers(wrapper: DatabaseWrapper) -> list[int]:
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT n FROM kept ORDER BY n")
        return [row[0] for row in cursor.fetchall()]


def insert(wrapper: DatabaseWrapper, number: int) -> None:
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO kept VALUES (%s)", [number])


@pytest.fixture
def table(wrapper: DatabaseWrapper) -> DatabaseWrapper:
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE kept (n int)")
    return wrapper


def test_close_pool_within_atomic_does_not_end_the_transaction(table: DatabaseWrapper) -> None:
    """A task runner may call it; the block still rolls back as a whole."""
    with suppress(ZeroDivisionError), transaction.atomic(using=table.alias):
        insert(table, 1)
        table.close_pool()
        insert(table, 2)
        raise ZeroDivisionError
    assert numbers(table) == []
    assert table.resources.snapshot().in_use == 0


@pytest.mark.parametrize("has_begun", [True, False])
def test_a_child_cannot_write_into_its_parents_transaction(table: DatabaseWrapper, has_begun: bool) -> None:
    """After a fork inside atomic the child's block can only fail; if it is never left, its writes would be lost."""
    with transaction.atomic(using=table.alias):
        if has_begun:
            insert(table, 1)
        child = os.fork()
        if child == 0:
            try:
                insert(table, 300)
                os._exit(1)
            except BaseException:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        insert(table, 2)
    assert numbers(table) == [1, 2][not has_begun :]


def test_a_child_also_forgets_a_pool_that_was_replaced(table: DatabaseWrapper) -> None:
    """A lease of the former configuration is the parent's, too."""
    with transaction.atomic(using=table.alias):
        mine = pid_of(table)
        table.settings_dict["OPTIONS"]["pool"] = {"max_size": 4}
        assert table.resources.configuration.max_size == 4
        child = os.fork()
        if child == 0:
            os._exit(0 if table.connection is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert pid_of(table) == mine


def test_a_stale_cursor_is_refused(make_wrapper: MakeWrapper) -> None:
    """Its connection may be in somebody else's transaction by now."""
    wrapper = make_wrapper(pool={"max_size": 1})
    cursor = wrapper.cursor()
    cursor.execute("SELECT 1")
    raw = wrapper.connection
    wrapper.close()
    with pytest.raises(Exception, match="given back"):
        cursor.execute("SELECT 2")
    assert raw is not None
    with pytest.raises(psycopg.InterfaceError, match="given back"):
        raw.execute("SELECT 3")
    cursor.close()
    pid_of(wrapper)


def test_a_stale_named_cursor_sends_nothing(make_wrapper: MakeWrapper) -> None:
    """Neither FETCH nor CLOSE."""
    wrapper = make_wrapper(pool={"max_size": 1})
    cursor = wrapper.chunked_cursor()
    cursor.execute("SELECT generate_series(1, 1000)")
    cursor.fetchone()
    wrapper.close()
    with pytest.raises(Exception, match="given back"):
        cursor.fetchone()
    cursor.close()
    pid_of(wrapper)


def test_autocommit_false_works_with_atomic(make_wrapper: MakeWrapper) -> None:
    """AUTOCOMMIT: False with nested blocks, as on Django's own backend."""
    wrapper = make_wrapper()
    wrapper.settings_dict["AUTOCOMMIT"] = False
    for savepoint in (True, False):
        with (
            transaction.atomic(using=wrapper.alias),
            transaction.atomic(using=wrapper.alias, savepoint=savepoint),
        ):
            pid_of(wrapper)
    wrapper.close()
    assert wrapper.resources.snapshot().in_use == 0


def test_types_made_by_a_migration_are_known_to_every_connection(make_wrapper: MakeWrapper) -> None:
    """connection_created is sent anew for idle connections after schema changes."""
    from django.contrib.postgres.operations import CITextExtension
    from django.contrib.postgres.signals import get_citext_oids, get_hstore_oids
    from django.db.migrations.state import ProjectState

    wrapper = make_wrapper(pool={"max_size": 2})
    with wrapper.pinned():
        thread = in_thread(lambda: pid_of(connections[wrapper.alias]))
        thread.join()
    wait_until(lambda: wrapper.resources.snapshot().idle == 2)
    greeted: list[int] = []
    from django.db.backends.signals import connection_created

    def receiver(connection: DatabaseWrapper, **kwargs: object) -> None:
        greeted.append(pid_of(connection))

    connection_created.connect(receiver)
    try:
        with wrapper.schema_editor() as editor:
            CITextExtension().database_forwards("x", editor, ProjectState(), ProjectState())
        with wrapper.pinned():
            pids = {pid_of(wrapper)}
            in_thread(lambda: pids.add(pid_of(connections[wrapper.alias]))).join()
    finally:
        connection_created.disconnect(receiver)
        get_citext_oids.cache_clear()
        get_hstore_oids.cache_clear()
    assert set(greeted) == pids
    assert len(pids) == 2


def test_a_changed_time_zone_costs_no_connection(wrapper: DatabaseWrapper) -> None:
    """override_settings(TIME_ZONE) inside a transaction."""
    with transaction.atomic(using=wrapper.alias):
        pid_of(wrapper)
        lease = wrapper._lease
        assert lease is not None
        pool = lease.pool
        wrapper.ensure_timezone()
    assert not pool.leases


def test_raw_execute_does_not_keep_the_lease(wrapper: DatabaseWrapper) -> None:
    """connection.connection.execute() makes a cursor that nobody closes."""
    with wrapper.cursor():
        assert wrapper.connection is not None
        wrapper.connection.execute("SELECT 1")
    assert wrapper.resources.snapshot().in_use == 0


def test_a_cursor_that_nobody_closed_does_not_keep_the_lease(wrapper: DatabaseWrapper) -> None:
    """Careless code forgets its cursor in a local variable."""

    def careless() -> int:
        cursor = wrapper.cursor()
        cursor.execute("SELECT 1")
        return int(cursor.fetchone()[0])

    assert careless() == 1
    assert wrapper.resources.snapshot().in_use == 0


def test_the_wrong_thread_is_refused_and_leaks_nothing(wrapper: DatabaseWrapper) -> None:
    """As with Django's own backend."""
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            pid_of(wrapper)
        except BaseException as error:
            errors.append(error)

    in_thread(ask).join()
    assert "same thread" in str(errors[0])
    assert wrapper.resources.snapshot().in_use == 0


def test_a_lost_pin_is_said(wrapper: DatabaseWrapper) -> None:
    """Session state cannot vanish silently."""
    with wrapper.pinned():
        wrapper.close()
        with pytest.raises(Exception, match="pinned connection was closed"):
            pid_of(wrapper)
    pid_of(wrapper)


def test_the_applications_own_read_only_transaction_is_no_failover(wrapper: DatabaseWrapper) -> None:
    """25006 on a server that accepts writes is a mistake in the application."""
    with transaction.atomic(using=wrapper.alias):
        with wrapper.cursor() as cursor:
            cursor.execute("SET TRANSACTION READ ONLY")
        with (
            pytest.raises(InternalError) as caught,
            transaction.atomic(using=wrapper.alias),
            wrapper.cursor() as cursor,
        ):
            cursor.execute("CREATE TABLE refused (n int)")
    assert classify(caught.value).status is None
    assert wrapper.resources.snapshot().generation == 1
    assert pid_of(wrapper)
    assert wrapper.resources.snapshot().opened_total == 1


def test_a_query_that_libpq_refuses_to_send_condemns_nobody(make_wrapper: MakeWrapper) -> None:
    """70,000 parameters: an OperationalError without SQLSTATE, on a healthy connection."""
    wrapper = make_wrapper(server_side_binding=True)
    with pytest.raises(OperationalError) as caught, wrapper.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(['%s'] * 70_000)}", list(range(70_000)))
    assert classify(caught.value).status is None
    assert wrapper.resources.snapshot().generation == 1
