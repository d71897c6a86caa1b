"""history.py and history_file.py: what a process writes down of itself, and what can be read when it is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError, transaction

from dbresilience import history, history_file, processes, reporting, signals
from dbresilience.base import DatabaseWrapper
from dbresilience.history import what_this_process_is
from dbresilience.history_file import (
    BREAKER,
    COUNTERS,
    GAUGES,
    KEPT_SECONDS,
    About,
    HistoryFile,
    HistoryWriter,
    Sample,
    history_files,
)
from dbresilience.intervals import NOTHING
from dbresilience.processes import Process, look
from tests.dbresilience.conftest import MakeWrapper, in_thread, run
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import site_environment

NOW = 1_800_000_000.0
NO_BUCKETS = NOTHING.buckets


def sample(at: float, *, trouble_since: float = 0.0, queries: int = 0, **numbers: int | str) -> Sample:
    numbers["breaker"] = BREAKER.index(str(numbers.get("breaker", "closed")))
    buckets = (*NO_BUCKETS[:-50], queries, *NO_BUCKETS[-49:])
    counters = tuple(int(numbers.get(name, 0)) for name in COUNTERS)
    return Sample(at, trouble_since, tuple(int(numbers.get(name, 0)) for name in GAUGES), counters, buckets)


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[HistoryWriter]:
    made = HistoryWriter(tmp_path, "digest", About("default", os.getpid(), "test", NOW))
    yield made
    made.close()


def test_the_rings_wrap_and_the_coarse_one_remembers_longer(writer: HistoryWriter) -> None:
    """Five minutes by the second, an hour by ten seconds; the file does not grow."""
    size = writer.path.stat().st_size
    for second in range(4000):
        writer.add_sample(sample(NOW + second, opened_total=second))
    read, last = HistoryFile(writer.path), NOW + 3999
    fine = [each.at for each in read.samples(1, NOW, last)]
    coarse = [each.at for each in read.samples(10, NOW, last)]
    assert fine == [NOW + second for second in range(3700, 4000)]
    assert len(coarse) == 360
    assert coarse[0] == NOW + 409  # the last of its ten seconds
    assert read.newest(last).counters[0] == 3999  # type: ignore[union-attr]
    assert read.newest(NOW + 1000).at == NOW + 999  # type: ignore[union-attr]
    assert writer.path.stat().st_size == size < 1_000_000


def test_ten_seconds_keep_their_worst_moment(writer: HistoryWriter) -> None:
    for second, waiting in enumerate([0, 7, 0]):
        writer.add_sample(sample(NOW + second, waiting=waiting, idle=waiting))
    (coarse,) = HistoryFile(writer.path).samples(10, NOW, NOW + 9)
    gauges = dict(zip(GAUGES, coarse.gauges, strict=True))
    assert (gauges["waiting"], gauges["idle"]) == (7, 0)


def test_half_a_sample_is_none(writer: HistoryWriter) -> None:
    """As of a process that was killed while it wrote, or that writes just now."""
    writer.add_sample(sample(NOW))
    writer.add_sample(sample(NOW + 1, in_use=3))
    data = bytearray(writer.path.read_bytes())
    offset = history_file._SECONDS.offset_of(int(NOW) + 1)
    data[offset + 60] ^= 1
    writer.path.write_bytes(data)
    assert [each.at for each in HistoryFile(writer.path).samples(1, NOW, NOW + 1)] == [NOW]


def test_what_is_read_while_it_is_written_is_whole(writer: HistoryWriter) -> None:
    """A reader beside a writer that does nothing else."""
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            writer.add_sample(sample(NOW, in_use=number, idle=number, opened_total=number, refused_total=number))

    thread = in_thread(write)
    try:
        found = [each for _ in range(300) for each in HistoryFile(writer.path).samples(1, NOW, NOW)]
    finally:
        stop.set()
        thread.join(10)
    assert found
    for each in found:
        numbers = {*each.gauges[3:5], each.counters[0], each.counters[COUNTERS.index("refused_total")]}
        assert len(numbers) == 1


def test_the_newest_events_stay_in_their_order(writer: HistoryWriter) -> None:
    for number in range(200):
        writer.add_event({"at": number, "text": "ä" * 60})
        writer.add_slow_query({"at": number})
    read = HistoryFile(writer.path)
    assert [event["at"] for event in read.events()] == list(range(72, 200))
    assert [query["at"] for query in read.slow_queries()] == list(range(168, 200))


def test_what_is_no_history_is_left_out(tmp_path: Path, writer: HistoryWriter) -> None:
    (tmp_path / "digest.1-1.history").write_bytes(b"something else")
    (tmp_path / "digest.2-1.history").symlink_to(writer.path)
    empty = tmp_path / "digest.3-1.history"
    empty.write_bytes(b"")
    os.truncate(empty, writer.path.stat().st_size)
    found = processes._readable(history_files(tmp_path, "digest"))
    assert [each.path for each in found] == [writer.path]


def test_files_are_removed_an_hour_after_the_last_sample(tmp_path: Path, writer: HistoryWriter) -> None:
    assert history_files(tmp_path) == [writer.path]
    old = time.time() - KEPT_SECONDS - 1
    os.utime(writer.path, (old, old))
    assert history_files(tmp_path) == []
    assert not writer.is_there


def test_states(writer: HistoryWriter) -> None:
    """Alive, silent while it is there, ended by its own word, killed without one."""

    def state(pid: int, age: float) -> str:
        writer._about = About("default", pid, "test", NOW)
        writer._write_about()
        return Process(HistoryFile(writer.path), NOW + age).state

    writer.add_sample(sample(NOW, in_use=2, max_size=4))
    child = subprocess.Popen(["true"])
    child.wait()
    assert state(os.getpid(), 1) == "alive"
    assert state(os.getpid(), 60) == "silent"
    assert state(child.pid, 60) == "killed"
    assert Process(HistoryFile(writer.path), NOW + 60).pool.max_size == 0
    writer.end()
    assert state(child.pid, 1) == "alive"  # `state` writes that it has not ended
    writer.end()
    assert Process(HistoryFile(writer.path), NOW + 1).state == "ended"


# In a real process


@pytest.fixture
def mine(make_wrapper: MakeWrapper, folder: Path) -> DatabaseWrapper:
    """A pool of this process whose history is in a folder of its own."""
    return make_wrapper(pool={"max_size": 3, "timeout": 0.2}, runtime_folder=str(folder), slow_query_seconds=0.05)


def my_process(wrapper: DatabaseWrapper) -> Process:
    reporting.report()
    (process,) = look(wrapper.resources.orders).processes
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
    (slow,) = process.file.slow_queries()
    assert slow["sql"] == "SELECT pg_sleep(%s), %s"
    assert "test_history.py" in slow["call_site"] or "conftest.py" in slow["call_site"]
    assert b"a secret" not in process.file.path.read_bytes()
    assert my_process(mine).minute.count_of("hold") >= 1


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
    names = [event["event"] for event in back.file.events()]
    assert {"breaker_opened", "breaker_closed"} <= set(names)
    assert names.index("breaker_opened") < names.index("breaker_closed")
    assert b"127.0.0.1" not in back.file.path.read_bytes()


def test_events_that_repeat_themselves_do_not_push_out_the_others(mine: DatabaseWrapper) -> None:
    run(mine, "SELECT 1")
    refused = psycopg.errors.TooManyConnections()
    for _ in range(20):
        signals.emit(signals.connection_failed, mine.alias, exception=refused, connect_seconds=0.0)
    told = [event["text"] for event in my_process(mine).file.events() if event["event"] == "connection_failed"]
    assert told == ["A connection was refused: server_full"]


def test_a_forked_child_writes_a_file_of_its_own(mine: DatabaseWrapper, folder: Path) -> None:
    """And leaves its parent's alone."""
    run(mine, "SELECT 1")
    reporting.report()
    before = {path: path.read_bytes() for path in history_files(folder)}
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
    after = {path: path.read_bytes() for path in history_files(folder)}
    assert {path: after[path] for path in before} == before
    states = {each.about.pid: each.state for each in look(mine.resources.orders, time.time() + 5).processes}
    assert states == {os.getpid(): "silent", pid: "killed"}


def test_a_file_that_was_removed_is_made_again(mine: DatabaseWrapper, folder: Path) -> None:
    run(mine, "SELECT 1")
    reporting.report()
    for path in history_files(folder):
        path.unlink()
    assert my_process(mine).pool.max_size == 3


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
        wait_until(lambda: look(orders).there, what="its first sample")
        (there,) = look(orders).there
        assert (there.about.what, there.pool.size) == ("manage.py shell", 1)
        if state == "killed":
            process.send_signal(signal.SIGKILL)
        process.wait(20)
    wait_until(lambda: not look(orders).there, what="its end being noticed")
    (gone,) = look(orders).processes
    assert (gone.state, gone.pool.size) == (state, 0)
    assert gone.minute.count_of("query") >= 1


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
