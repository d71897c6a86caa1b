"""reporting.py: each second once, in every process with a pool, and a last time at its end."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbresilience import measures, reporting
from tests.dbresilience.conftest import MakeWrapper, run
from tests.settings import BASE_DIR


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "dbresilience-reporting"]


@pytest.fixture
def turns() -> Iterator[list[float]]:
    found: list[float] = []
    reporting.each_second("test", lambda: found.append(time.monotonic()))
    yield found
    reporting.no_longer("test")


@pytest.mark.slow
def test_each_second_once_however_many_pools(turns: list[float], make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    wrapper.resources.close()
    run(wrapper, "SELECT 1")
    assert len(threads()) == 1
    before = len(turns)
    time.sleep(2.6)
    assert len(turns) - before in (2, 3)


def test_what_raises_is_logged_once_and_harms_nobody(turns: list[float], caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    reporting.each_second("broken", fail)
    reporting.each_second("test", lambda: turns.append(0.0))
    try:
        with caplog.at_level(logging.ERROR, "dbresilience.reporting"):
            reporting.report()
            reporting.report()
    finally:
        reporting.no_longer("broken")
    assert len(turns) >= 2
    assert [record.getMessage() for record in caplog.records] == ["broken could not be reported"]


def test_a_forked_child_reports_for_itself(turns: list[float], make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            before = len(threads())
            run(wrapper, "SELECT 1")
            status = 0 if (before, len(threads())) == (0, 1) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@pytest.mark.parametrize("stop", ["ends by itself", "is told to"])
def test_the_last_second_of_a_process_is_not_lost(stop: str, database_url: str, tmp_path: Path) -> None:
    program = """
import django, pathlib, signal, sys, time
django.setup()
from django.db import connection
from dbresilience import measures
told = []
def write(drained):
    told.extend(drained.holds)
    pathlib.Path(sys.argv[1]).write_text(str(len(told)))
measures.subscribe("test", write)
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
for _ in range(7):
    connection.cursor().execute("SELECT 1")
print("asked", flush=True)
while sys.argv[2] == "is told to":
    time.sleep(0.05)  # not one long one: a signal that arrives just before it would be looked at after it
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "holds"), stop],
        cwd=BASE_DIR,
        env=os.environ | {"DATABASE_URL": database_url, "DJANGO_SETTINGS_MODULE": "config.settings", "DEBUG": "1"},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == b"asked\n"
    if stop == "is told to":
        process.terminate()
    assert process.wait(10) == 0
    assert (tmp_path / "holds").read_text() == "7"


def test_a_subscriber_that_raises_harms_no_other(make_wrapper: MakeWrapper) -> None:
    heard: list[measures.Drained] = []

    def fail(drained: measures.Drained) -> None:
        raise ZeroDivisionError

    measures.subscribe("a broken one", fail)
    measures.subscribe("test", heard.append)
    try:
        wrapper = make_wrapper()
        run(wrapper, "SELECT 1")
        with pytest.raises(ExceptionGroup):
            measures.drain()
    finally:
        measures.unsubscribe("a broken one")
        measures.unsubscribe("test")
    assert [each.holds for each in heard if each.alias == wrapper.alias]
