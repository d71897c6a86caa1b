"""history.py: what a process writes down of itself, and what can be read when it is gone."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError, transaction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.urls import ResolverMatch
from psycopg import sql

from dbresilience import history, reporting, signals
from dbresilience.base import DatabaseWrapper
from dbresilience.history import what_this_process_is
from dbresilience.history_reading import history_files
from dbresilience.masking import without_values
from dbresilience.middleware import RequestContextMiddleware
from dbresilience.processes import Process, look
from tests.dbresilience.conftest import MakeWrapper, run
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import site_environment


@pytest.fixture
def mine(make_wrapper: MakeWrapper, folder: Path) -> DatabaseWrapper:
    """A pool of this process whose history is in a folder of its own."""
    return make_wrapper(pool={"max_size": 3}, runtime_folder=str(folder), slow_query_seconds=0.05)


def my_process(wrapper: DatabaseWrapper) -> Process:
    reporting.report()
    (process,) = look(wrapper.resources.orders, wrapper.alias).processes
    return process


def test_a_pool_that_was_never_used_has_no_file(mine: DatabaseWrapper, folder: Path) -> None:
    """`manage.py` commands that ask nothing leave nothing."""
    _ = mine.resources
    reporting.report()
    assert not folder.exists()


def test_a_process_tells_what_it_does(mine: DatabaseWrapper) -> None:
    """Gauges of now, durations of the last minute, a slow query with its place and without its values."""
    with transaction.atomic(using=mine.alias):
        run(mine, "SELECT pg_sleep(%s), %s", [0.1, "a secret"])
        process = my_process(mine)
    assert (process.about.pid, process.about.alias, process.state) == (os.getpid(), mine.alias, "alive")
    assert (process.pool.max_size, process.pool.in_use, process.pool.waiting) == (3, 1, 0)
    query = process.minute.percentiles("query")
    assert query.count >= 1
    assert query.p99 is not None
    assert 0.09 < query.p99 < 0.4
    (slow,) = process.file.slow_queries
    assert slow["sql"] == "SELECT pg_sleep(%s), %s"
    assert "test_history.py" in slow["call_site"] or "conftest.py" in slow["call_site"]
    assert b"a secret" not in process.file.path.read_bytes()
    assert my_process(mine).minute.count_of("hold") >= 1


def test_no_value_goes_into_the_file(make_wrapper: MakeWrapper, folder: Path) -> None:
    """Neither with `slow_query_parameters` nor from SQL composed by hand, nor a path: it may name somebody."""
    mine = make_wrapper(runtime_folder=str(folder), slow_query_seconds=0.05, slow_query_parameters=True)
    request = RequestFactory().get("/reset/MQ/set-c1x2-5f3e/")

    def view(request: HttpRequest) -> HttpResponse:
        run(mine, sql.SQL("SELECT pg_sleep({}), {}").format(0.1, "composed secret"))
        request.resolver_match = ResolverMatch(view, (), {}, route="reset/<uidb64>/<token>/")
        run(mine, "SELECT pg_sleep(0.1), 'raw secret', 4711 AS \"a1\"")
        return HttpResponse()

    RequestContextMiddleware(view)(request)
    process = my_process(mine)
    assert [(query["sql"], query["path"]) for query in process.file.slow_queries] == [
        ("SELECT pg_sleep(?), ?", ""),
        ('SELECT pg_sleep(?), ?, ? AS "a1"', "/reset/<uidb64>/<token>/"),
    ]
    assert not {b"secret", b"4711", b"c1x2"} & set(re.findall(rb"secret|4711|c1x2", process.file.path.read_bytes()))


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT a1 FROM t2 WHERE b = %s AND c = $1 LIMIT 21", "SELECT a1 FROM t2 WHERE b = %s AND c = $1 LIMIT ?"),
        ("x = 'it''s' AND y = E'it\\'s' AND z = $a$it's$a$", "x = ? AND y = ? AND z = ?"),
        ("x = -1.5e3 + .5 OR y = 0x1F", "x = -? + ? OR y = ?"),
        ("/* it's */ x = 'a' -- it's y = 'b'", "? x = ? ?"),
        ("x = 'cut off", "x = ?"),
        ("\"it's\" = 'a'", '"it\'s" = ?'),
    ],
)
def test_statements_are_shown_without_values(statement: str, shown: str) -> None:
    assert without_values(statement) == shown


def test_one_pool_that_cannot_be_written_leaves_the_others_written(
    mine: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(mine, "SELECT 1")
    resources = mine.resources
    snapshot = resources.snapshot()
    broken = replace(snapshot, breaker="unheard of")
    monkeypatch.setattr(history, "_pools_in_use", lambda: [(resources, broken), (resources, snapshot)])
    with pytest.raises(ValueError, match="not in tuple"):
        history.write()
    (process,) = look(mine.resources.orders, mine.alias).processes
    assert process.pool.max_size == 3


def test_a_signal_may_be_sent_while_another_is_counted(mine: DatabaseWrapper) -> None:
    """A garbage collection in the midst of it may close a cursor, which has something to tell."""
    run(mine, "SELECT 1")
    counted = threading.Event()

    def collect() -> None:
        with history._history_of(mine.alias)._lock:
            signals.emit(signals.statement_overdue, mine.alias, deadline_seconds=1.0, answered=True, query="SELECT ?")
        counted.set()

    threading.Thread(target=collect, daemon=True).start()
    assert counted.wait(5)
    assert history._history_of(mine.alias) is history._history_of(mine.alias)


def test_an_outage_is_on_the_time_line(mine: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """Found away, since when, and back; nothing of it names a host."""
    run(mine, "SELECT 1")
    postgres.stop("immediate")
    with pytest.raises(OperationalError):
        run(mine, "SELECT 1")
    away = my_process(mine)
    assert away.pool.breaker == "open"
    assert away.trouble_since == pytest.approx(time.time(), abs=5)
    signals.emit(signals.request_refused, None, status=503)
    assert my_process(mine).minute.count("refused_total") >= 1
    postgres.start()

    def is_back() -> bool:
        try:
            return bool(run(mine, "SELECT 1"))
        except OperationalError:
            return False

    wait_until(is_back, what="the database")
    back = my_process(mine)
    assert (back.pool.breaker, back.trouble_since) == ("closed", None)
    names = [event["event"] for event in back.file.events]
    assert {"breaker_opened", "breaker_closed"} <= set(names)
    assert names.index("breaker_opened") < names.index("breaker_closed")
    assert b"127.0.0.1" not in back.file.path.read_bytes()


def test_events_that_repeat_themselves_do_not_push_out_the_others(mine: DatabaseWrapper) -> None:
    run(mine, "SELECT 1")
    refused = psycopg.errors.TooManyConnections()
    for _ in range(20):
        signals.emit(signals.connection_failed, mine.alias, exception=refused, connect_seconds=0.0)
    told = [event["text"] for event in my_process(mine).file.events if event["event"] == "connection_failed"]
    assert told == ["A connection was refused: server_full"]


def test_a_forked_child_writes_a_file_of_its_own(mine: DatabaseWrapper, folder: Path) -> None:
    """And leaves its parent's alone."""
    run(mine, "SELECT 1")
    reporting.report()
    (parents,) = history_files(folder)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            child_begins_with_nothing = not history._process().histories
            mine.connection = None
            run(mine, "SELECT 2")
            reporting.report()
            code = 0 if child_begins_with_nothing else 2
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    found = {each.about.pid: each for each in look(mine.resources.orders, mine.alias, time.time() + 5).processes}
    assert {number: each.state for number, each in found.items()} == {os.getpid(): "silent", pid: "killed"}
    assert found[os.getpid()].file.path == parents
    assert found[pid].minute.count_of("query") >= 1


def test_a_file_that_was_removed_is_made_again(mine: DatabaseWrapper, folder: Path) -> None:
    run(mine, "SELECT 1")
    reporting.report()
    for path in history_files(folder):
        path.unlink()
    process = my_process(mine)
    assert process.pool.max_size == 3
    assert process.minute.count_of("query") == 0  # it was in the file that is gone
    time.sleep(1)  # or it would be within the first sample
    run(mine, "SELECT 2")
    assert my_process(mine).minute.count_of("query") == 1


PROGRAM = """
import sys, time
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("SELECT 1")
print("ready", flush=True)
{then}
"""


@pytest.mark.slow
@pytest.mark.parametrize(("then", "state"), [("time.sleep(60)", "killed"), ("time.sleep(1.2)", "ended")])
def test_another_process_can_be_read_after_its_end(
    mine: DatabaseWrapper, database_url: str, folder: Path, then: str, state: str
) -> None:
    """Killed without a word, or ended: its numbers are there, its pool is gone."""
    url = f"{database_url}?runtime_folder={folder}"
    process = subprocess.Popen(
        [sys.executable, "manage.py", "shell", "-v0", "-c", PROGRAM.format(then=then)],
        cwd=BASE_DIR, env=site_environment(DATABASE_URL=url), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
        orders = mine.resources.orders
        wait_until(lambda: [each.pool.size for each in look(orders, mine.alias).there] == [1], what="its sample")
        (there,) = look(orders, mine.alias).there
        assert there.about.what == "manage.py shell"
        if state == "killed":
            process.send_signal(signal.SIGKILL)
        process.wait(20)
    wait_until(lambda: not look(orders, mine.alias).there, what="its end being noticed")
    (gone,) = look(orders, mine.alias).processes
    assert (gone.state, gone.pool.size) == (state, 0)
    assert gone.minute.count_of("query") >= 1


@pytest.mark.slow
def test_a_command_of_a_moment_has_ended_and_was_not_killed(
    mine: DatabaseWrapper, database_url: str, folder: Path
) -> None:
    """Its first sample is its last; migrations would be in the headline as processes that ended without a word."""
    subprocess.run(
        [sys.executable, "manage.py", "migrate", "-v0"],
        cwd=BASE_DIR, env=site_environment(DATABASE_URL=f"{database_url}?runtime_folder={folder}"), check=True,
    )  # fmt: skip
    (gone,) = look(mine.resources.orders, mine.alias).processes
    assert (gone.about.what, gone.state) == ("manage.py migrate", "ended")


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["/srv/.venv/bin/gunicorn", "site:application"], "gunicorn"),
        (["/lib/gunicorn/__main__.py", "-c", "x"], "gunicorn"),
        (["manage.py", "chat_worker"], "manage.py chat_worker"),
        (["manage.py", "--settings=secret"], "manage.py"),
        ([""], "python"),
    ],
)
def test_processes_are_named_for_people(argv: list[str], name: str) -> None:
    assert what_this_process_is(argv) == name
