"""warmup.py: processes that serve have asked the database before anybody asks them; others stay cold."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site, run_python

HANDLER = """
import os, time, threading
from django.db import connection, connections, transaction
from django.core.wsgi import get_wsgi_application
import dbresilience
pool = dbresilience.get_database_resources()
def warmed():
    until = time.monotonic() + 12
    while pool.snapshot().warm_up == "running":
        assert time.monotonic() < until
        time.sleep(0.01)
    return pool.snapshot()
def serve(**options):
    # As a worker does that has these options; `pool` is then theirs.
    global pool
    connection.settings_dict["OPTIONS"] |= options
    pool = dbresilience.get_database_resources()
    get_wsgi_application()
def slow():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.7)")
    asked.append(time.monotonic())
asked = []
"""


def outcome(code: str, database_url: str) -> str:
    done = run_python(HANDLER + code, database_url)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_a_process_that_serves_has_a_connection_before_it_is_asked(database_url: str) -> None:
    log = outcome(
        """
get_wsgi_application()
found = warmed()
assert (found.warm_up, found.opened_total, found.idle, found.in_use) == ("done", 1, 1, 0), found
""",
        database_url,
    )
    assert "warm-up done" in log


@pytest.mark.parametrize(
    "code",
    [
        "from django.core.management import call_command; call_command('check')",
        "from django.test import Client; Client().get('/livez')",
        "connection.ensure_connection(); connection.close()",
    ],
)
def test_everybody_else_stays_cold(database_url: str, code: str) -> None:
    log = outcome(code + "\nassert pool.snapshot().warm_up == 'off'\nassert pool.snapshot().size <= 1", database_url)
    assert "warm-up" not in log


@pytest.mark.parametrize("option", ["warm_up=false", "scale_to_zero=true"])
def test_it_can_be_turned_off(database_url: str, option: str) -> None:
    outcome(
        "get_wsgi_application()\ntime.sleep(0.2)\nassert pool.snapshot().opened_total == 0", f"{database_url}?{option}"
    )


def test_scale_to_zero_leaves_nothing_open(database_url: str, postgres: ThrowawayPostgres) -> None:
    outcome(
        """
get_wsgi_application()
assert pool.configuration.max_idle == 1
def ask():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.2)")
threads = [threading.Thread(target=ask) for _ in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert pool.snapshot().size == 3, pool.snapshot()
until = time.monotonic() + 9
while pool.snapshot().size:
    assert time.monotonic() < until, pool.snapshot()
    time.sleep(0.1)
""",
        f"{database_url}?scale_to_zero=true&pool_max_idle=1",
    )


@pytest.mark.timed
def test_whoever_comes_early_waits_for_it_before_begin(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
with transaction.atomic(), connection.cursor() as cursor:
    cursor.execute("SELECT clock_timestamp() - now()")
    assert asked, "it did not wait"
    assert cursor.fetchone()[0].total_seconds() < 0.3
assert pool.snapshot().opened_total == 1
""",
        database_url,
    )


@pytest.mark.timed
def test_but_no_longer_than_it_may(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
began = time.monotonic()
try:
    with dbresilience.deadline(0.2), connection.cursor() as cursor:
        cursor.execute("SELECT 1")
except dbresilience.DatabaseUnavailable:
    pass
else:
    raise AssertionError("it had no time left")
assert 0.15 < time.monotonic() - began < 0.6
assert warmed().warm_up == "done"
""",
        database_url,
    )


def test_readiness_follows_it(database_url: str) -> None:
    outcome(
        """
serve(warm_up_with=slow)
from django.test import Client
response = Client().get("/readyz")
assert (response.status_code, response.json()["state"]) == (503, "warming_up"), response.content
assert Client().get("/livez").status_code == 200
warmed()
time.sleep(0.3)
assert Client().get("/readyz").status_code == 200
""",
        database_url,
    )


@pytest.mark.timed
def test_a_database_that_is_away_stops_no_start(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """The site starts, refuses at once, and serves when the database is there."""
    postgres.stop()
    try:
        site = start_site()
        began = time.monotonic()
        assert site.status("/readyz") == 503
        assert site.status("/api/threads", token="nonsense") == 503
        assert time.monotonic() - began < 3
        wait_until(lambda: "warm-up failed" in site.log)
    finally:
        postgres.start()
    wait_until(lambda: site.status("/readyz") == 200)
    assert site.status("/api/threads", token="nonsense") == 401


def test_a_frozen_server_holds_nobody_up_for_ever(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    postgres.freeze()
    try:
        site = start_site(url=f"{database_url}?deadline_seconds=2")
        began = time.monotonic()
        assert site.status("/api/threads", token="nonsense") in (503, 504)
        assert time.monotonic() - began < 5
    finally:
        postgres.thaw()


def test_what_a_warm_up_is_told_to_ask_may_fail(database_url: str) -> None:
    log = outcome(
        """
serve(warm_up_with="nowhere.at.all")
assert warmed().warm_up == "failed"
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
""",
        database_url,
    )
    assert "nowhere" in log
    assert "Traceback" not in log


def test_one_that_hangs_makes_nobody_wait_for_ever(database_url: str) -> None:
    """Requests stop waiting, and the process is ready, though its warm-up has not ended."""
    outcome(
        """
import dbresilience.warmup
dbresilience.warmup.LONGEST_SECONDS = 0.5
hangs = threading.Event()
serve(warm_up_with=lambda: hangs.wait(20) and None)
assert pool.snapshot().warm_up == "running"
time.sleep(0.7)
from django.test import Client
assert Client().get("/readyz").status_code == 200
assert pool.snapshot().warm_up == "failed"
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
hangs.set()
""",
        database_url,
    )


def test_who_forks_in_the_middle_of_it_keeps_nothing(database_url: str) -> None:
    """What the warm-up opens after the fork is let go of, too."""
    outcome(
        """
import dbresilience.warmup
dbresilience.warmup.FORK_WAITS_SECONDS = 0.2
begun, forked = threading.Event(), threading.Event()
def ask_after_the_fork():
    begun.set()
    assert forked.wait(5)
    slow()
serve(warm_up_with=ask_after_the_fork)
assert begun.wait(5)
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
opened_before = pool.snapshot().opened_total
forked.set()
assert warmed().warm_up in ("done", "failed")
assert asked and pool.snapshot().opened_total > opened_before, "nothing was opened after the fork"
until = time.monotonic() + 3
while pool.snapshot().size:
    assert time.monotonic() < until, pool.snapshot()
    time.sleep(0.02)
""",
        database_url,
    )


@pytest.mark.parametrize("kind", ["worker", "child of one that was asked"])
def test_a_fork_waits_for_what_it_imports(database_url: str, tmp_path: Path, kind: str) -> None:
    """Else the child finds that module locked by a thread that it does not have, and never gets it."""
    (tmp_path / "takes_long.py").write_text("import time\ntime.sleep(1.5)\n")
    asked = 'request_started.send(sender=None, environ={"PATH_INFO": "/"})' if "asked" in kind else ""
    outcome(
        f"""
import signal, sys
from django.core.signals import request_started
sys.path.insert(0, {str(tmp_path)!r})
begun = threading.Event()
def import_it():
    begun.set()
    import takes_long
serve(warm_up_with=import_it)
{asked}
assert begun.wait(5)
time.sleep(0.2)
child = os.fork()
if not child:
    signal.alarm(8)
    import takes_long
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "it hung"
""",
        database_url,
    )


def test_the_child_of_a_serving_process_stays_cold(database_url: str) -> None:
    """A program of multiprocessing's is no worker of the server, whether it was asked before or not."""
    outcome(
        """
import multiprocessing
get_wsgi_application()
warmed()
def child(answer):
    time.sleep(0.3)
    answer.put((dbresilience.get_database_resources().snapshot().opened_total,))
answer = multiprocessing.get_context("fork").Queue()
process = multiprocessing.get_context("fork").Process(target=child, args=[answer])
process.start()
assert answer.get(timeout=10) == (0,)
process.join()
""",
        database_url,
    )


def test_a_preloading_server_hands_it_on_to_its_workers(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """The process that forks keeps no session; each worker has its own, before it is asked."""
    site = start_site(GUNICORN_CMD_ARGS="--preload", WEB_CONCURRENCY="2")
    name = database_url.rsplit("/", 1)[1]
    wait_until(lambda: site.log.count("warm-up done") == 3, what=f"three warm-ups:\n{site.log}")
    wait_until(lambda: postgres.backends(name) == 2)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(site.status("/api/threads", token="nonsense")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [401] * 20
    assert site.stop() == 0
    wait_until(lambda: postgres.backends(name) == 0)
