"""testing.py: what a user's tests may ask for, and what holds under tests by itself."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import (
    DatabaseError,
    IntegrityError,
    OperationalError,
    connection,
    transaction,
)

from dbresilience import CommitOutcomeUnknown, classify, gather, no_retries, pipeline, retry
from dbresilience.base import DatabaseWrapper
from dbresilience.testing import assert_no_connection_out, connections_out, failing_statement
from tests.dbresilience.conftest import in_thread, run
from tests.settings import BASE_DIR

Arm = Callable[..., Callable[[], bool]]


@pytest.mark.parametrize(
    ("sqlstate", "classification"),
    [("40001", "serialization"), ("55P03", "lock_not_available"), ("23505", "not_transient"), ("53300", "server_full")],
)
def test_the_next_statement_fails_as_the_server_lets_it_fail(
    wrapper: DatabaseWrapper, fail_next_statement: Arm, sqlstate: str, classification: str
) -> None:
    happened = fail_next_statement(sqlstate, alias=wrapper.alias)
    assert not happened()
    with pytest.raises(DatabaseError) as caught, transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT 1")
    assert happened()
    assert classify(caught.value).name == classification
    assert isinstance(caught.value, IntegrityError) == (sqlstate == "23505")
    assert run(wrapper, "SELECT 1") == [(1,)]


def test_a_transaction_is_aborted_as_in_production(wrapper: DatabaseWrapper, fail_next_statement: Arm) -> None:
    fail_next_statement("55P03", alias=wrapper.alias)
    with pytest.raises(DatabaseError, match="aborted"), transaction.atomic(using=wrapper.alias):
        for _ in range(2):
            try:
                wrapper.cursor().execute("SELECT 1")
            except OperationalError:
                continue


@pytest.mark.parametrize("sqlstate", ["57P01", "08006"])
def test_a_session_that_is_lost_is_lost(wrapper: DatabaseWrapper, sqlstate: str) -> None:
    """A read goes again, a write outside a transaction is of unknown outcome, and the pool replaces the connection."""
    run(wrapper, "CREATE TABLE kept (n int)")
    before = run(wrapper, "SELECT pg_backend_pid()")
    with failing_statement(sqlstate, alias=wrapper.alias):
        assert run(wrapper, "SELECT pg_backend_pid()") != before
    with failing_statement(sqlstate, alias=wrapper.alias, matching="INSERT"), pytest.raises(CommitOutcomeUnknown):
        run(wrapper, "INSERT INTO kept VALUES (1)")
    assert run(wrapper, "SELECT 1") == [(1,)]


def test_a_unit_goes_again_and_without_retries_it_does_not(wrapper: DatabaseWrapper) -> None:
    run(wrapper, "CREATE TABLE kept (n int)")

    @retry(using=wrapper.alias)
    def unit() -> None:
        run(wrapper, "INSERT INTO kept VALUES (1)")

    with failing_statement("40001", alias=wrapper.alias):
        unit()
    with failing_statement("40001", alias=wrapper.alias), no_retries(), pytest.raises(OperationalError):
        unit()
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]


@pytest.mark.parametrize("sqlstate", ["40001", "57P01", "08006"])
def test_a_statement_that_waits_fails_too(wrapper: DatabaseWrapper, sqlstate: str) -> None:
    """In a pipeline, which goes again as the documentation has it, and in gather()."""
    run(wrapper, "CREATE TABLE kept (n int)")

    @retry(using=wrapper.alias, idempotent=True)
    @pipeline(using=wrapper.alias)
    def unit() -> None:
        with wrapper.cursor() as cursor:
            cursor.execute("INSERT INTO kept VALUES (1)")

    with failing_statement(sqlstate, alias=wrapper.alias, matching="INSERT"):
        unit()
    assert run(wrapper, "SELECT n FROM kept") == [(1,)]
    with failing_statement(sqlstate, alias=wrapper.alias), no_retries(), pytest.raises(OperationalError):
        gather(lambda: run(wrapper, "SELECT n FROM kept"), using=wrapper.alias)


def test_two_that_fail_are_two_attempts(wrapper: DatabaseWrapper) -> None:
    attempts: list[None] = []

    @retry(using=wrapper.alias)
    @pipeline(using=wrapper.alias)
    def unit() -> None:
        attempts.append(None)
        with wrapper.cursor() as cursor:
            cursor.execute("SELECT 'that'")

    fails = partial(failing_statement, "40001", alias=wrapper.alias, matching="that")
    with fails(), fails():
        unit()
    assert len(attempts) == 3


def test_it_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; import dbresilience.testing"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=BASE_DIR)


def test_without_retries_the_first_error_is_seen(wrapper: DatabaseWrapper, without_retries: None) -> None:
    with failing_statement("57P01", alias=wrapper.alias), pytest.raises(OperationalError):
        run(wrapper, "SELECT 1")


def test_it_fails_in_whatever_thread(wrapper: DatabaseWrapper, fail_next_statement: Arm) -> None:
    happened = fail_next_statement("40001", alias=wrapper.alias, matching="needle")
    run(wrapper, "SELECT 1")
    assert not happened()
    failed: list[Exception] = []

    def ask() -> None:
        try:
            run(DatabaseWrapper(wrapper.settings_dict, wrapper.alias), "SELECT 'needle'")
        except OperationalError as error:
            failed.append(error)

    in_thread(ask).join()
    assert happened()
    assert len(failed) == 1


def test_a_failure_that_never_happened_is_told(wrapper: DatabaseWrapper) -> None:
    with pytest.raises(AssertionError, match="No statement on 'default' containing 'needle'"):
        with failing_statement("40001", matching="needle"):
            run(wrapper, "SELECT 1")


@pytest.mark.parametrize("sqlstate", ["", "4000", "40001; DROP", "00000", "äöüäö"])
def test_what_is_no_sqlstate_is_refused(sqlstate: str) -> None:
    with pytest.raises(ValueError, match="give five characters"), failing_statement(sqlstate):
        pass


def test_who_holds_a_connection_is_named(wrapper: DatabaseWrapper) -> None:
    assert_no_connection_out()
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 'held'")
        (held,) = connections_out()
        assert held.startswith(f"{wrapper.alias}: no request in MainThread")
        with pytest.raises(AssertionError, match="1 not given back") as caught:
            assert_no_connection_out()
        assert "SELECT 'held'" in str(caught.value)
    assert_no_connection_out()


def test_the_transaction_around_a_test_is_no_leak(db: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert connections_out() == []


def test_the_test_profile_holds_by_itself(wrapper: DatabaseWrapper) -> None:
    assert (wrapper.resources.configuration.timeout, wrapper.resources.configuration.warm_up) == (20.0, False)


def test_what_is_set_goes_before_the_test_profile(make_wrapper: Any) -> None:
    assert make_wrapper(pool={"timeout": 3}).resources.configuration.timeout == 3


def run_pytest(folder: Path, tests: str, database_url: str, *arguments: str) -> str:
    """Run pytest as a project does that has installed the package."""
    (folder / "test_theirs.py").write_text(textwrap.dedent(tests))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "dbresilience.pytest_plugin",
         "-c", "/dev/null", "--rootdir", str(folder), "--ds", "tests.settings", *arguments,
         str(folder / "test_theirs.py")],
        cwd=BASE_DIR,
        env=os.environ | {"DATABASE_URL": database_url},
        capture_output=True,
        text=True,
        timeout=120,
    )  # fmt: skip
    return done.stdout + done.stderr


THEIRS = """
import pytest
from django.db import connection

held = []

@pytest.mark.django_db(transaction=True)
@pytest.mark.no_connection_out
def test_leaks():
    import threading
    def leak():
        from django.db import connection
        connection.inc_thread_sharing()
        cursor = connection.cursor()
        cursor.execute("SELECT 'leaked'")
        held.append((connection, cursor))
    thread = threading.Thread(target=leak)
    thread.start()
    thread.join()

@pytest.mark.django_db(transaction=True)
@pytest.mark.no_connection_out
def test_leaks_in_its_own_thread():
    cursor = connection.cursor()
    cursor.execute("SELECT 'kept'")
    held.append((connection, cursor))

@pytest.mark.django_db(transaction=True)
@pytest.mark.no_connection_out
def test_gives_back():
    held[0][1].close()
    connection.cursor().execute("SELECT 1")

def test_fails(db, fail_next_statement):
    fail_next_statement("40001")
    with pytest.raises(Exception, match="a failure for a test"):
        connection.cursor().execute("SELECT 1")
"""


@pytest.mark.slow
def test_the_plugin_in_a_project_of_its_own(tmp_path: Path, database_url: str) -> None:
    told = run_pytest(tmp_path, THEIRS, database_url)
    assert "4 passed, 2 errors" in told, told
    assert "ERROR at teardown of test_leaks" in told
    assert "SELECT 'kept'" in told
    assert "SELECT 'leaked'" in told


@pytest.mark.slow
def test_four_parallel_workers_share_one_server(tmp_path: Path, database_url: str) -> None:
    """Each on a test database and a pool of its own."""
    tests = """
import pytest
from django.contrib.auth.models import User
@pytest.mark.django_db
@pytest.mark.parametrize("number", range(40))
def test_it(number):
    User.objects.create(username="same")
    assert User.objects.count() == 1
"""
    assert "40 passed" in run_pytest(tmp_path, tests, database_url, "-n", "4")
