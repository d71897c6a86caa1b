"""fork.py: parent and child go on, each with connections of its own, whatever was open when they parted."""

from __future__ import annotations

import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import run_python

READS = """
import multiprocessing, os, threading, time
from django.db import connection, connections, transaction
import dbresilience

def rows(start):
    with connection.cursor() as cursor:
        cursor.execute("SELECT generate_series(%s, %s)", [start, start + 99])
        return [row[0] for row in cursor.fetchall()] == list(range(start, start + 100))

def pid():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]

def is_there(session):
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [session])
        return cursor.fetchone()[0] == 1

def all_right(start, times=20, threads=3):
    found = []
    def read():
        found.extend(rows(start) for _ in range(times))
        connections.close_all()
    workers = [threading.Thread(target=read) for _ in range(threads)]
    for worker in workers: worker.start()
    for worker in workers: worker.join()
    return found == [True] * (times * threads)

before = pid()
"""


def run(code: str, database_url: str, postgres: ThrowawayPostgres) -> None:
    done = run_python(READS + code, database_url)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    wait_until(lambda: postgres.backends(database_url.rsplit("/", 1)[1]) == 0, timeout_seconds=2)


@pytest.mark.parametrize("within", ["if True:", "with connection.cursor():", "with transaction.atomic():"])
def test_both_read_what_they_asked_for(within: str, database_url: str, postgres: ThrowawayPostgres) -> None:
    """At once, in several threads each, with connections idle and in use at the fork; within a second."""
    run(
        f"""
assert all_right(1)
{within}
    child = os.fork()
    began = time.monotonic()
    if not child:
        fine = all_right(1000) and time.monotonic() - began < 1
        dbresilience.get_database_resources().close("the child ends")
        os._exit(0 if fine else 1)
    assert all_right(5000)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert is_there(before)
""",
        database_url,
        postgres,
    )


def test_while_threads_of_the_parent_are_at_it(database_url: str, postgres: ThrowawayPostgres) -> None:
    """A fork in the middle of everything: locks held, a connection being opened, a lease on its way back."""
    run(
        """
stop = threading.Event()
def busy():
    while not stop.is_set():
        assert rows(7)
    connections.close_all()
threads = [threading.Thread(target=busy) for _ in range(4)]
for thread in threads: thread.start()
for _ in range(20):
    child = os.fork()
    if not child:
        fine = all_right(1000, times=3, threads=2)
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
stop.set()
for thread in threads: thread.join()
""",
        database_url,
        postgres,
    )


def test_multiprocessing(database_url: str, postgres: ThrowawayPostgres) -> None:
    run(
        """
with multiprocessing.get_context("fork").Pool(4) as pool:
    assert pool.map(rows, range(1, 40)) == [True] * 39
    assert rows(1)
assert pid() == before
""",
        database_url,
        postgres,
    )


def test_workers_that_close_what_they_have_inherited(database_url: str, postgres: ThrowawayPostgres) -> None:
    """As Celery's do in each process of its pool, when it begins and after each task."""
    run(
        """
def begin():
    for each in connections.all():
        each.close()
        each.close_pool()
def task(start):
    fine = rows(start)
    for each in connections.all():
        each.close_if_unusable_or_obsolete()
    return fine
with multiprocessing.get_context("fork").Pool(3, initializer=begin) as pool:
    assert pool.map(task, range(1, 30)) == [True] * 29
assert pid() == before
""",
        database_url,
        postgres,
    )


def test_a_child_of_a_child(database_url: str, postgres: ThrowawayPostgres) -> None:
    run(
        """
def generation(depth):
    fine = rows(depth + 1)
    if depth < 3:
        child = os.fork()
        if not child:
            os._exit(0 if generation(depth + 1) else 1)
        fine = fine and os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    return fine and rows(depth + 1)
assert generation(0)
assert pid() == before
""",
        database_url,
        postgres,
    )
