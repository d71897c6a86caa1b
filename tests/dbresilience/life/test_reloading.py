"""process.py: modules that are executed again, as hot reload and notebooks do; the same pool goes on."""

from __future__ import annotations

import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import run_python

BEFORE = """
import importlib, os, pkgutil, sys, threading, time
from django.db import OperationalError, connections, transaction
import dbresilience
from dbresilience import signals
from dbresilience.deadlines import seconds_left

def pid():
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

def in_new_thread(work):
    found = []
    def run():
        found.append(work())
        connections.close_all()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    return found[0]

names = [name for _, name, _ in pkgutil.walk_packages(dbresilience.__path__, "dbresilience.")
         if name in sys.modules] + ["dbresilience"]
first = pid()
before = dbresilience.get_database_resources()
heard = []
receiver = lambda **details: heard.append(details)
signals.connection_opened.connect(receiver)
signals.unit_repeated.connect(receiver)
old = {name: getattr(dbresilience, name) for name in dbresilience.__all__}
"""

AFTER = """
# This thread's wrapper is of old code, a new thread's of new: both use the one pool.
assert dbresilience.get_database_resources() is before
assert pid() == in_new_thread(pid) == first
assert not heard, heard
assert before.snapshot().opened_total == 1
for name in ("DatabaseUnavailable", "AcquireTimeout", "CommitOutcomeUnknown", "Classification"):
    assert getattr(dbresilience, name) is old[name], name
def limited():
    with dbresilience.deadline(7):
        return seconds_left(100, None)
assert limited() <= 7
attempts = []
@dbresilience.retry
def unit():
    attempts.append(1)
    with transaction.atomic(), connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
        if len(attempts) == 1:
            cursor.execute("DO $$ BEGIN RAISE SQLSTATE '40001'; END $$")
in_new_thread(unit)
assert len(attempts) == 2
assert len(heard) == 1
try:
    with dbresilience.deadline(0.05):
        try:
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT pg_sleep(1)")
        except OperationalError:
            pid()
except old["DatabaseUnavailable"]:
    pass
else:
    raise AssertionError("the deadline did not hold")
child = os.fork()
if not child:
    os._exit(0 if pid() != first else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert pid() == first
"""


@pytest.mark.parametrize(
    "reload",
    [
        "for name in names: importlib.reload(sys.modules[name])",
        "for name in reversed(names): importlib.reload(sys.modules[name])",
        "for name in names + names: importlib.reload(sys.modules[name])",
    ],
)
def test_the_same_pool_goes_on(reload: str, database_url: str, postgres: ThrowawayPostgres) -> None:
    """Every module of ours, in one order and the other, and twice."""
    done = run_python(BEFORE + reload + AFTER, database_url)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    wait_until(lambda: postgres.backends(database_url.rsplit("/", 1)[1]) == 0, timeout_seconds=2)


def test_so_it_does_for_each_module_alone(database_url: str) -> None:
    done = run_python(
        BEFORE + "for name in names:\n    importlib.reload(sys.modules[name])\n"
        "    assert pid() == in_new_thread(pid) == first, name\n"
        "    assert dbresilience.get_database_resources() is before, name\n" + AFTER,
        database_url,
    )
    assert done.returncode == 0, done.stderr


def test_so_it_does_for_modules_that_are_imported_anew(database_url: str) -> None:
    """What a runner does that throws modules away."""
    done = run_python(
        BEFORE
        + "for name in names: del sys.modules[name]\nimport dbresilience\nfrom dbresilience import deadline\n"
        + AFTER,
        database_url,
    )
    assert done.returncode == 0, done.stderr


def test_with_changed_settings_the_old_pool_is_closed(database_url: str, postgres: ThrowawayPostgres) -> None:
    """A notebook whose cell is run again with another size."""
    cell = """
from django.conf import settings
connections["default"].settings_dict["OPTIONS"]["pool"] = {"max_size": SIZE}
now = pid()
"""
    done = run_python(
        BEFORE
        + cell.replace("SIZE", "3")
        + "third, three = now, dbresilience.get_database_resources()\n"
        + cell.replace("SIZE", "3")
        + "assert now == third and dbresilience.get_database_resources() is three\n"
        + cell.replace("SIZE", "4")
        + "assert now not in (first, third)\n"
        + "time.sleep(0.3)\n"
        + "assert three.snapshot().size == before.snapshot().size == 0\n",
        database_url,
    )
    assert done.returncode == 0, done.stderr
    wait_until(lambda: postgres.backends(database_url.rsplit("/", 1)[1]) == 0, timeout_seconds=2)
