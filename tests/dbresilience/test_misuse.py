"""What careless or unusual code does to a lease: nothing is lost, nothing reaches another's session."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from django.db import DataError, InternalError, OperationalError, connections, transaction

from dbresilience import AcquireTimeout, DatabaseUnavailable, classify
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import TooManyWaiting
from tests.support.postgres import ThrowawayPostgres, wait_until

from .conftest import MakeWrapper, pid_of


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


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_close_pool_within_atomic_does_not_end_the_transaction(table: DatabaseWrapper) -> None:
    """A task runner may call it; the block still rolls back as a whole."""
    with suppress(ZeroDivisionError), transaction.atomic(using=table.alias):
        insert(table, 1)
        table.close_pool()
        insert(table, 2)
        raise ZeroDivisionError
    assert numbers(table) == []
    assert table.resources.snapshot().in_use == 0


def test_a_child_cannot_write_into_its_parents_transaction(table: DatabaseWrapper) -> None:
    """After a fork inside atomic the child's block can only fail."""
    with transaction.atomic(using=table.alias):
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
    assert numbers(table) == [1, 2]


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
        pids = {pid_of(wrapper) for _ in range(4)}
    finally:
        connection_created.disconnect(receiver)
        get_citext_oids.cache_clear()
        get_hstore_oids.cache_clear()
    assert set(greeted) == pids
    assert len(pids) == 2


def test_an_idle_transaction_does_not_hide_an_outage(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """Its holder has not noticed yet; everybody else is told at once."""
    holder = make_wrapper(pool={"timeout": 8})
    pid_of(holder)
    asker = make_wrapper(pool={"timeout": 8})
    with holder.pinned():
        postgres.stop("immediate")
        started = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            pid_of(asker)
        assert time.monotonic() - started < 1
        postgres.start()
        pid_of(asker)


def test_a_session_that_cannot_be_set_up_is_no_riddle(make_wrapper: MakeWrapper) -> None:
    """A role that does not exist: at once, with the reason, and no session left behind."""
    wrapper = make_wrapper(assume_role="nope")
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable) as caught:
        pid_of(wrapper)
    assert time.monotonic() - started < 1
    assert isinstance(caught.value.__cause__, DataError | psycopg.Error)
    assert "nope" in str(caught.value.__cause__)
    del wrapper.settings_dict["OPTIONS"]["assume_role"]
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
        assert cursor.fetchone() == (1,)


def test_those_who_wait_use_the_room_of_survivors(make_wrapper: MakeWrapper) -> None:
    """When connections of an older generation go, others may be opened for those who wait already."""
    pool = {"max_size": 2, "timeout": 5}
    wrappers = [make_wrapper(pool=pool) for _ in range(2)]
    pid_of(wrappers[0])
    for each in wrappers:
        each.ensure_connection()
    wrappers[0].resources.close()
    results: list[int] = []

    def ask() -> None:
        wrapper = connections[wrappers[0].alias]
        results.append(pid_of(wrapper))

    threads = [in_thread(ask) for _ in range(3)]
    time.sleep(0.3)
    assert wrappers[0].resources.snapshot().size == 2
    for each in wrappers:
        each.close()
    for thread in threads:
        thread.join(5)
    assert len(results) == 3


def test_two_configurations_of_one_alias_do_not_end_each_other(make_wrapper: MakeWrapper) -> None:
    """A thread with a cached time zone beside one with the new one."""
    first, second = make_wrapper(pool={"max_size": 1}), make_wrapper(pool={"max_size": 2})
    counts = [0, 0]
    until = time.monotonic() + 0.5

    def ask(wrapper: DatabaseWrapper, index: int) -> None:
        connections[wrapper.alias] = wrapper
        wrapper.inc_thread_sharing()
        while time.monotonic() < until:
            pid_of(wrapper)
            counts[index] += 1

    threads = [in_thread(lambda w=w, i=i: ask(w, i)) for i, w in enumerate((first, second))]  # type: ignore[misc]
    for thread in threads:
        thread.join(5)
    assert min(counts) > 50


def test_closing_psycopgs_pool_from_outside_is_survived(wrapper: DatabaseWrapper) -> None:
    """connection.pool is public in Django's backend, so people close it."""
    pid_of(wrapper)
    wrapper.pool.close()
    pid_of(wrapper)


def test_a_cold_burst_is_not_refused(make_wrapper: MakeWrapper) -> None:
    """max_waiting is about requests that wait for others, not for a connection being opened."""
    pool = {"max_size": 8, "max_waiting": 1}
    first = make_wrapper(pool=pool)
    refused: list[BaseException] = []

    def ask() -> None:
        try:
            pid_of(connections[first.alias])
        except TooManyWaiting as error:
            refused.append(error)

    threads = [in_thread(ask) for _ in range(8)]
    for thread in threads:
        thread.join(10)
    assert not refused


def test_a_thread_that_ended_gives_its_connection_back(make_wrapper: MakeWrapper) -> None:
    """Whoever needs it next takes it, rolled back."""
    pool = {"max_size": 1, "timeout": 2}
    first = make_wrapper(pool=pool)
    pid_of(first)

    def forget() -> None:
        connections[first.alias].ensure_connection()

    in_thread(forget).join()
    assert first.resources.snapshot().in_use == 1
    pid_of(first)
    assert first.resources.snapshot().in_use == 0


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


def test_a_frozen_server_is_not_called_a_small_pool(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """The advice to raise max_size would be wrong."""
    wrapper = make_wrapper(pool={"timeout": 0.3})
    postgres.freeze()
    try:
        with pytest.raises(AcquireTimeout, match=r"could not open a connection within 0\.3 s") as caught:
            pid_of(wrapper)
    finally:
        postgres.thaw()
    assert "max_size'" not in str(caught.value)
