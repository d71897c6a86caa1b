"""history_file.py: a file that wraps, that can be read while it is written, and that outlives who wrote it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbresilience import history_file, processes
from dbresilience.history_file import COUNTERS, GAUGES, About, HistoryWriter
from dbresilience.history_reading import KEPT_SECONDS, HistoryFile, history_files
from dbresilience.intervals import between
from dbresilience.percentiles import BUCKETS
from dbresilience.processes import Process
from tests.dbresilience.conftest import in_thread
from tests.dbresilience.machines import NOW, sample
from tests.settings import BASE_DIR


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
    offset = history_file.SECONDS.offset_of(int(NOW) + 1)
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
    assert [event["at"] for event in read.events] == list(range(72, 200))
    assert [query["at"] for query in read.slow_queries] == list(range(168, 200))


def test_what_is_no_history_is_left_out(tmp_path: Path, writer: HistoryWriter) -> None:
    (tmp_path / "digest.1-1.history").write_bytes(b"something else")
    (tmp_path / "digest.2-1.history").symlink_to(writer.path)
    empty = tmp_path / "digest.3-1.history"
    empty.write_bytes(b"")
    os.truncate(empty, writer.path.stat().st_size)
    found = processes._readable(history_files(tmp_path, "digest"), NOW)
    assert [each.path for each in found] == [writer.path]


def test_files_are_removed_an_hour_after_the_last_sample(tmp_path: Path, writer: HistoryWriter) -> None:
    assert history_files(tmp_path) == [writer.path]
    old = time.time() - KEPT_SECONDS - 1
    os.utime(writer.path, (old, old))
    assert history_files(tmp_path) == []
    assert not writer.is_there


FULL_DISK = """
import os, resource, sys
from pathlib import Path
from dbresilience.history_file import About, HistoryWriter
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
before = os.listdir("/proc/self/fd")
for _ in range(3):
    try:
        HistoryWriter(Path(sys.argv[1]), "digest", About("default", 1, "test", 0.0))
    except OSError as error:
        print(error.errno)
assert os.listdir("/proc/self/fd") == before
"""


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_a_file_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    """It is tried again each second, for as long as the disk is full."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, tmp_path], cwd=BASE_DIR, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (0, f"{errno.EFBIG}\n" * 3), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_more_than_four_thousand_million_statements(writer: HistoryWriter) -> None:
    """A bucket begins anew then, and what came in between is right all the same."""
    before, after = (sample(NOW + at)._replace(buckets=(2**32 - 1 + 3 * at,) * BUCKETS * 3) for at in (0, 1))
    writer.add_sample(before)
    writer.add_sample(after)
    first, second = HistoryFile(writer.path).samples(1, NOW, NOW + 1)
    assert set(between(first, second, NOW).buckets) == {3}


def test_the_file_of_a_process_that_is_gone_is_read_once(writer: HistoryWriter, tmp_path: Path) -> None:
    """What is asked of it is the same afterwards; it is read again once somebody has written to it."""
    writer.add_sample(sample(NOW, opened_total=7))
    writer.add_event({"at": NOW, "text": "before"})

    def read() -> HistoryFile:
        (found,) = processes._readable(history_files(tmp_path, "digest"), NOW)
        return found

    assert read() is not read()
    quiet = time.time() - 60
    os.utime(writer.path, (quiet, quiet))
    kept = read()
    assert kept is read()
    assert [each.counters[0] for each in kept.samples(1, NOW, NOW)] == [7]
    assert kept.newest(NOW).at == NOW  # type: ignore[union-attr]
    writer.add_event({"at": NOW, "text": "after"})
    assert [event["text"] for event in read().events] == ["before", "after"]
    os.utime(writer.path, (quiet, quiet))
    kept = read()
    writer.path.unlink()
    assert list(kept.samples(1, NOW, NOW)) == []
    assert processes._readable([], NOW) == []
    assert writer.path not in processes._untouched


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
