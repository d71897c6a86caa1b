"""errors.py: every row of the SQLSTATE table, through psycopg's classes and Django's wrappers."""

from __future__ import annotations

import sqlite3

import django.db
import psycopg
import pytest
from django.db.backends.utils import CursorWrapper
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from dbresilience import AcquireTimeout, DatabaseUnavailable, classify
from dbresilience.base import DatabaseWrapper
from tests.support.postgres import wait_until

from .conftest import in_thread, pid_of

UNAVAILABLE = [
    "08000", "08001", "08003", "08004", "08006", "08007", "25006", "28000", "28P01", "40000", "40001",
    "40003", "40P01", "53000", "53100", "53200", "53300", "53400", "55P03", "57P01", "57P02", "57P03",
    "57P05", "58000", "58030", "XX001", "XX002",
]  # fmt: skip
TOO_SLOW = ["57014", "25P04"]
LEFT_ALONE = ["22001", "23505", "23503", "40002", "42601", "42P01", "3D000", "0A000", "55006", "55000",
              "57P04", "25P03", "XX000", "P0001", "08P01"]  # fmt: skip


def wrapped(error: psycopg.Error) -> django.db.Error:
    """What Django makes of a driver error."""
    for kind in (
        django.db.DataError, django.db.OperationalError, django.db.IntegrityError, django.db.InternalError,
        django.db.ProgrammingError, django.db.NotSupportedError,
    ):  # fmt: skip
        if isinstance(error, getattr(psycopg, kind.__name__)):
            translated = kind(str(error))
            translated.__cause__ = error
            return translated
    raise AssertionError(f"Django has no wrapper for {error!r}")


@pytest.mark.parametrize("sqlstate", UNAVAILABLE)
def test_the_database_cannot_serve(sqlstate: str) -> None:
    """503, whether psycopg calls it operational (57P01) or internal (25006)."""
    error = psycopg.errors.lookup(sqlstate)()
    assert classify(error).status == 503
    assert classify(wrapped(error)).unavailable


@pytest.mark.parametrize("sqlstate", TOO_SLOW)
def test_the_database_took_too_long(sqlstate: str) -> None:
    """504: the statement ran and was ended."""
    assert classify(wrapped(psycopg.errors.lookup(sqlstate)())).status == 504


@pytest.mark.parametrize("sqlstate", LEFT_ALONE)
def test_mistakes_stay_what_they_were(sqlstate: str) -> None:
    """Integrity, programming and configuration errors are not outages."""
    assert classify(wrapped(psycopg.errors.lookup(sqlstate)())).status is None


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("consuming input failed: server closed the connection unexpectedly"),
        psycopg.errors.ConnectionTimeout("connection timeout expired"),
        PoolTimeout("x"),
        PoolClosed("x"),
        TooManyRequests("x"),
        DatabaseUnavailable("x"),
        AcquireTimeout("x"),
        django.db.OperationalError("server closed the connection unexpectedly"),
        django.db.InterfaceError("connection already closed"),
    ],
)
def test_errors_without_sqlstate_are_unavailability(error: Exception) -> None:
    """Connect failures and EOF carry no code and a translated text."""
    assert classify(error).unavailable


def test_other_exceptions_mean_nothing() -> None:
    """A KeyError is nobody's outage, nor is an error of SQLite."""
    assert classify(KeyError("x")).name == "not_transient"
    locked = django.db.OperationalError("database is locked")
    locked.__cause__ = sqlite3.OperationalError("database is locked")
    assert classify(locked).name == "not_transient"


def test_the_alias_says_when_to_come_back() -> None:
    """Unless the error knows better."""
    busy, starting = AcquireTimeout("x"), DatabaseUnavailable("x")
    busy.retry_after_seconds = starting.retry_after_seconds = 7
    starting.__cause__ = psycopg.errors.CannotConnectNow()
    assert classify(busy).retry_after_seconds == 7
    assert classify(starting).retry_after_seconds == 1


@pytest.mark.parametrize(("commit_lookup", "name"), [(True, "not_committed"), (False, "outcome_unknown")])
def test_a_commit_that_was_never_answered_is_looked_up_or_of_unknown_outcome(
    wrapper: DatabaseWrapper,
    make_wrapper,  # type: ignore[no-untyped-def]
    commit_lookup: bool,
    name: str,
) -> None:
    """The session is ended while a deferred trigger keeps COMMIT busy."""
    with wrapper.cursor() as cursor:
        cursor.execute(
            "CREATE TABLE slow_to_commit (n int);"
            "CREATE FUNCTION doze() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_sleep(20); RETURN NULL; END';"
            "CREATE CONSTRAINT TRIGGER dozes AFTER INSERT ON slow_to_commit"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION doze();"
        )
    committing = make_wrapper(resilience={"commit_lookup": commit_lookup})
    wrapper.inc_thread_sharing()

    def end_the_session_at_commit() -> None:
        with wrapper.cursor() as cursor:
            wait_until(lambda: terminated(cursor))

    def terminated(cursor: CursorWrapper) -> bool:
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid = %s AND query = 'COMMIT' AND state = 'active'",
            [pid],
        )
        return cursor.rowcount > 0

    block = django.db.transaction.atomic(using=committing.alias)
    block.__enter__()
    pid = pid_of(committing)
    with committing.cursor() as cursor:
        cursor.execute("INSERT INTO slow_to_commit VALUES (1)")
    thread = in_thread(end_the_session_at_commit)
    with pytest.raises(django.db.OperationalError) as caught:
        block.__exit__(None, None, None)
    thread.join()
    assert classify(caught.value).name == name
    assert committing.resources.snapshot().in_use == 0
    assert pid_of(committing) != pid


def test_a_lost_connection_is_never_reused_and_a_deadlock_is_harmless_to_it() -> None:
    """evict and condemn follow the table."""
    lost, deadlock = classify(psycopg.errors.AdminShutdown()), classify(psycopg.errors.DeadlockDetected())
    assert (lost.evict, lost.condemn, lost.outage) == (True, True, True)
    assert (deadlock.evict, deadlock.condemn, deadlock.retry) == (False, False, "transaction")
    assert not classify(psycopg.errors.IdleSessionTimeout()).condemn


def test_unavailable_is_an_operational_error() -> None:
    """Existing `except OperationalError` goes on working."""
    assert issubclass(AcquireTimeout, DatabaseUnavailable)
    assert issubclass(DatabaseUnavailable, django.db.OperationalError)


def test_severity_decides_before_the_code(wrapper: DatabaseWrapper, make_wrapper) -> None:  # type: ignore[no-untyped-def]
    """A code of class 08 at severity ERROR, as dblink sends, says nothing about our session."""
    with pytest.raises(django.db.OperationalError) as caught, wrapper.cursor() as cursor:
        cursor.execute("DO $$ BEGIN RAISE EXCEPTION 'far away' USING ERRCODE = '08006'; END $$")
    assert not classify(caught.value).evict
    assert wrapper.resources.snapshot().generation == 1


def test_a_terminated_session_is_recognised_by_its_real_error(
    wrapper: DatabaseWrapper,
    make_wrapper,  # type: ignore[no-untyped-def]
) -> None:
    """The real thing: FATAL 57P01 in the middle of a transaction."""
    other = make_wrapper()
    with wrapper.pinned():
        victim = pid_of(wrapper)
        with other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 1000)", [victim])
        with pytest.raises(django.db.OperationalError) as caught:
            pid_of(wrapper)
    assert classify(caught.value).evict
    assert pid_of(wrapper) != victim
