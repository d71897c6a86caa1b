"""wrapper.py: the connection is out only while PostgreSQL works, and Django does not notice."""

from __future__ import annotations

import threading
from contextlib import suppress

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, transaction
from django.db.backends.signals import connection_created
from django.test import override_settings

from dbresilience.base import DatabaseWrapper
from dbresilience.checks.placement import check_connection_age, check_other_engines

from .conftest import MakeWrapper, pid_of


def in_use(wrapper: DatabaseWrapper) -> int:
    return wrapper.resources.snapshot().in_use


def test_a_query_gives_its_connection_back(wrapper: DatabaseWrapper) -> None:
    """Nothing is held between two queries, and both use the same backend."""
    first = pid_of(wrapper)
    assert in_use(wrapper) == 0
    assert wrapper.connection is None
    assert pid_of(wrapper) == first


def test_an_age_for_pooled_connections_is_refused(make_wrapper: MakeWrapper) -> None:
    """Servers run no system checks, so the first query says it, too."""
    wrapper = make_wrapper()
    wrapper.settings_dict["CONN_MAX_AGE"] = 60
    wrapper._resources = None
    wrapper.settings_dict["OPTIONS"]["application_name"] = "x"
    with pytest.raises(ImproperlyConfigured, match="CONN_MAX_AGE to 60"):
        pid_of(wrapper)
    wrapper.settings_dict["CONN_MAX_AGE"] = 0


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_the_checks_name_what_contradicts() -> None:
    """Before anything is served."""
    databases = {
        "default": {**connections["default"].settings_dict, "CONN_MAX_AGE": 60},
        "other": {"ENGINE": "django.db.backends.sqlite3", "OPTIONS": {"resilience": {}}},
    }
    connections.settings["other"] = {**connections["default"].settings_dict, **databases["other"]}
    try:
        with override_settings(DATABASES=databases):
            assert [message.id for message in check_connection_age(None)] == ["dbresilience.E001"]
            assert [message.id for message in check_other_engines(None)] == ["dbresilience.E002"]
    finally:
        del connections["other"]
        del connections.settings["other"]


def test_nothing_is_opened_before_it_is_needed(wrapper: DatabaseWrapper) -> None:
    """Neither looking at the pool nor asking for autocommit connects."""
    assert wrapper.get_autocommit()
    assert wrapper.resources.snapshot().size == 0
    assert wrapper.resources.pool is not None
    assert wrapper.resources.pool.recovery.opened_total == 0


def test_an_open_cursor_keeps_the_connection_through_inner_queries(wrapper: DatabaseWrapper) -> None:
    """Reference-counted: the inner query does not take the outer one's cursor away."""
    with wrapper.cursor() as outer:
        outer.execute("SELECT pg_backend_pid()")
        assert pid_of(wrapper) == outer.fetchone()[0]
        assert in_use(wrapper) == 1
    assert in_use(wrapper) == 0


def test_a_named_cursor_survives_inner_queries(wrapper: DatabaseWrapper) -> None:
    """QuerySet.iterator() reads from the server while its body queries."""
    with wrapper.chunked_cursor() as cursor:
        cursor.execute("SELECT generate_series(1, 5000)")
        rows = cursor.fetchmany(10)
        pid_of(wrapper)
        rows += cursor.fetchall()
    assert len(rows) == 5000
    assert in_use(wrapper) == 0


def run_atomic(wrapper: DatabaseWrapper) -> transaction.Atomic:
    return transaction.atomic(using=wrapper.alias)


def test_a_transaction_keeps_one_connection_to_its_end(wrapper: DatabaseWrapper) -> None:
    """BEGIN to COMMIT is one lease, savepoints included."""
    with run_atomic(wrapper):
        first = pid_of(wrapper)
        with run_atomic(wrapper):
            assert pid_of(wrapper) == first
        assert in_use(wrapper) == 1
    assert in_use(wrapper) == 0


def test_a_rolled_back_transaction_gives_back_a_clean_connection(wrapper: DatabaseWrapper) -> None:
    """The next one starts outside any transaction."""
    with suppress(ZeroDivisionError), run_atomic(wrapper):
        pid_of(wrapper)
        raise ZeroDivisionError
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id_if_assigned(), now() = statement_timestamp()")
        assert cursor.fetchone() == (None, True)


def test_commit_hooks_run_without_a_connection_in_hand(wrapper: DatabaseWrapper) -> None:
    """on_commit is where people call slow services."""
    held: list[int] = []
    with run_atomic(wrapper):
        pid_of(wrapper)
        wrapper.on_commit(lambda: held.append(in_use(wrapper)))
    assert held == [0]


def test_a_begin_by_hand_keeps_the_connection(wrapper: DatabaseWrapper) -> None:
    """A transaction that Django does not know of is still a transaction."""
    with wrapper.cursor() as cursor:
        cursor.execute("BEGIN")
    assert in_use(wrapper) == 1
    with wrapper.cursor() as cursor:
        cursor.execute("COMMIT")
    assert in_use(wrapper) == 0


def test_manual_transactions_hold_until_autocommit_is_back(wrapper: DatabaseWrapper) -> None:
    """set_autocommit(False) … commit() … set_autocommit(True)."""
    wrapper.set_autocommit(False)
    first = pid_of(wrapper)
    wrapper.commit()
    assert pid_of(wrapper) == first
    wrapper.rollback()
    wrapper.set_autocommit(True)
    assert in_use(wrapper) == 0


def test_closing_in_a_transaction_rolls_back_and_returns(wrapper: DatabaseWrapper) -> None:
    """close() inside atomic: Django refuses further queries, the pool has its connection again."""
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE closing (n int)")
    wrapper.set_autocommit(False)
    with wrapper.cursor() as cursor:
        cursor.execute("INSERT INTO closing VALUES (1)")
    wrapper.close()
    assert in_use(wrapper) == 0
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM closing")
        assert cursor.fetchone() == (0,)


def test_an_error_in_a_query_gives_the_connection_back(wrapper: DatabaseWrapper) -> None:
    """A mistake in SQL costs no slot."""
    with pytest.raises(DatabaseError), wrapper.cursor() as cursor:
        cursor.execute("SELECT nonsense")
    assert in_use(wrapper) == 0
    assert wrapper.resources.snapshot().generation == 1


def test_pinned_keeps_session_state(wrapper: DatabaseWrapper) -> None:
    """SET and advisory locks need one connection for a block."""
    with wrapper.pinned():
        with wrapper.cursor() as cursor:
            cursor.execute("CREATE TEMPORARY TABLE kept (n int)")
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM kept")
            assert cursor.fetchone() == (0,)
    assert in_use(wrapper) == 0


def test_the_lease_may_last_as_long_as_the_request(make_wrapper: MakeWrapper) -> None:
    """lease="request" behaves as Django's own pool."""
    wrapper = make_wrapper(resilience={"lease": "request"})
    pid_of(wrapper)
    assert in_use(wrapper) == 1
    wrapper.close_if_unusable_or_obsolete()
    assert in_use(wrapper) == 0


def test_connection_created_means_a_new_physical_connection(make_wrapper: MakeWrapper) -> None:
    """Receivers that register types or query do it once for each backend."""
    wrapper = make_wrapper(pool={"max_size": 1})
    created: list[int] = []

    def receiver(connection: DatabaseWrapper, **kwargs: object) -> None:
        created.append(pid_of(connection))

    connection_created.connect(receiver)
    try:
        pids = {pid_of(wrapper) for _ in range(3)}
    finally:
        connection_created.disconnect(receiver)
    assert created == list(pids)


def test_twenty_threads_share_a_pool_of_three(make_wrapper: MakeWrapper) -> None:
    """Never more than max_size sessions, nobody refused, all given back."""
    pids: set[int] = set()
    errors: list[BaseException] = []
    first = make_wrapper(pool={"max_size": 3})

    def work() -> None:
        wrapper = make_wrapper(pool={"max_size": 3})
        try:
            for _ in range(20):
                pids.add(pid_of(wrapper))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert 1 <= len(pids) <= 3
    assert in_use(first) == 0


def test_without_a_pool_it_is_djangos_backend(make_wrapper: MakeWrapper) -> None:
    """pool=False: one connection per wrapper, kept until close()."""
    wrapper = make_wrapper(pool=False)
    first = pid_of(wrapper)
    assert wrapper.connection is not None
    assert pid_of(wrapper) == first
    wrapper.close()
    assert pid_of(wrapper) != first


def test_session_settings_are_made_once_per_connection(make_wrapper: MakeWrapper) -> None:
    """statement_timeout and the time zone hold for every lease."""
    wrapper = make_wrapper(resilience={"statement_timeout_seconds": 7})
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout'), current_setting('TimeZone')")
        assert cursor.fetchone() == ("7s", wrapper.timezone_name)
