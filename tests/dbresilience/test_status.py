"""`manage.py dbresilience status` and `watch`: what an operator sees of the processes of a machine."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psycopg
import pytest
from django.db import OperationalError, transaction

from dbresilience import history, reporting
from dbresilience.base import DatabaseWrapper
from dbresilience.overview import overview
from dbresilience.server_sessions import LONGEST_AGE_SECONDS, MEMORY_SECONDS, ask_server
from tests.dbresilience.conftest import Command, MakeWrapper, in_thread, run
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import site_environment


@pytest.fixture
def site(make_wrapper: MakeWrapper, folder: Path) -> DatabaseWrapper:
    """A pool of this process, which writes its history once a second."""
    history.install()
    made = make_wrapper(pool={"max_size": 1, "timeout": 20}, runtime_folder=str(folder))
    run(made, "SELECT 1")
    reporting.report()
    return made


@pytest.mark.slow
def test_status_by_what_is(
    site: DatabaseWrapper,
    make_wrapper: MakeWrapper,
    command: Command,
    folder: Path,
    postgres: ThrowawayPostgres,
) -> None:
    """Well, saturated, away: in words, as JSON and as an exit code."""
    well = command("status")
    assert well.returncode == 0, well.stderr
    assert well.stdout.startswith("ok  All is well: 1 process, 0 of 1 connections in use.\n")
    assert str(os.getpid()) in well.stdout
    assert "Server: " in well.stdout

    another = lambda: make_wrapper(pool={"max_size": 1, "timeout": 20}, runtime_folder=str(folder))  # noqa: E731
    with transaction.atomic(using=site.alias):
        run(site, "SELECT 1")
        waiting = in_thread(lambda: run(another(), "SELECT 2"))
        wait_until(lambda: site.resources.snapshot().waiting, what="somebody who waits")
        reporting.report()
        saturated = command("status", "--json")
    waiting.join(20)
    facts = json.loads(saturated.stdout)
    assert saturated.returncode == 1
    assert facts["headline"]["code"] == 1
    assert facts["headline"]["text"].startswith("Pool full: 1 request waiting")
    (process,) = facts["processes"]
    assert (process["pid"], process["state"], process["pool"]["waiting"]) == (os.getpid(), "alive", 1)
    assert facts["server"]["state"] == "ok"
    assert facts["server"]["max_connections"] == 100

    postgres.stop()
    with pytest.raises(OperationalError):
        run(site, "SELECT 1")
    reporting.report()
    away = command("status")
    assert away.returncode == 3
    assert away.stdout.startswith("!!  The database has been away for ")
    assert "127.0.0.1" not in away.stdout


@pytest.mark.slow
def test_status_without_anything_to_show(command: Command, database_url: str, postgres: ThrowawayPostgres) -> None:
    """Exit code 2 and what to look at; 3 if the database is away, which is found by asking it."""
    nobody = command("status")
    assert nobody.returncode == 2
    assert "No process has used 'default' within the last hour." in nobody.stderr
    assert "runtime_folder" in nobody.stderr
    assert command("status", url=f"{database_url}?pool=false").returncode == 2
    postgres.stop()
    assert json.loads(command("status", "--json").stdout)["processes"] == []
    assert command("status").returncode == 3


@pytest.mark.slow
def test_watch_as_json_is_one_object_a_second(site: DatabaseWrapper, database_url: str, folder: Path) -> None:
    """Until whoever reads it goes away."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "dbresilience", "watch", "--json"],
        cwd=BASE_DIR, env=site_environment(DATABASE_URL=f"{database_url}?runtime_folder={folder}"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        found = [json.loads(process.stdout.readline()) for _ in range(3)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert "Traceback" not in process.stderr.read()
    assert 1.5 < found[2]["at"] - found[0]["at"] < 4
    assert found[0]["processes"][0]["pid"] == os.getpid()


def test_the_help_names_every_cause_of_exit_code_1(command: Command) -> None:
    """As the page does, for whoever writes a script."""
    causes = "1 a pool or the server is full, requests were refused just now or are paused, or a process is silent"
    assert causes in " ".join(command("status", "--help").stdout.split())
    assert causes in (BASE_DIR / "docs" / "howto" / "read-the-dashboard.md").read_text()


def test_watch_wants_a_terminal(command: Command) -> None:
    refused = command("watch")
    assert refused.returncode == 2
    assert "watch draws on a terminal, and standard output is none: use status, or watch --json." in refused.stderr


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_watch_leaves_the_terminal_in_order(
    site: DatabaseWrapper, database_url: str, folder: Path, end: signal.Signals
) -> None:
    """Draws on the other screen, and shows the cursor and the first one again, however it is ended."""
    terminal, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "manage.py", "dbresilience", "watch"],
        cwd=BASE_DIR, stdin=child, stdout=child, stderr=child,
        env=site_environment(DATABASE_URL=f"{database_url}?runtime_folder={folder}", COLUMNS="60", LINES="20"),
    )  # fmt: skip
    os.close(child)
    shown = b""

    def read(until: bytes) -> bytes:
        nonlocal shown
        deadline = time.monotonic() + 20
        while until not in shown and time.monotonic() < deadline:
            if select.select([terminal], [], [], 0.2)[0]:
                try:
                    shown += os.read(terminal, 65536)
                except OSError:  # the other end is closed
                    break
        return shown

    try:
        read(b"\x1b[J")
        process.send_signal(end)
        process.wait(10)
        text = read(b"\x1b[?25h\x1b[?1049l").decode()
    finally:
        process.kill()
        process.wait()
        os.close(terminal)
    assert text.startswith("\x1b[?1049h\x1b[?25l")
    assert "All is well" in text
    assert str(os.getpid()) in text
    assert text.rstrip().endswith("\x1b[?25h\x1b[?1049l")
    assert "Traceback" not in text
    screen = text.split("\x1b[H")[1]
    assert screen.count("\r\n") < 20


def test_slots_are_those_of_this_user_and_database(site: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """As the doctor counts them: without others' sessions, and within the database's own limit."""
    with psycopg.connect(postgres.url("postgres")):
        slots = ask_server(site.resources, timeout_seconds=5).slots
        assert slots.others >= 1
        assert slots.left == slots.max_connections - slots.reserved - slots.others
        postgres.execute(f"ALTER DATABASE {site.settings_dict['NAME']} CONNECTION LIMIT 7")
        time.sleep(MEMORY_SECONDS + 0.1)
        facts = overview(site.resources, server_timeout_seconds=5).facts()
        assert (facts["server"]["limit"], facts["server"]["left"]) == (7, 7)


@pytest.mark.timed
def test_the_server_is_asked_once_however_many_look(site: DatabaseWrapper, postgres: ThrowawayPostgres) -> None:
    """On a connection outside the pool; by application name; no longer than a look may take."""
    asked = [ask_server(site.resources, timeout_seconds=5) for _ in range(20)]
    assert len({id(each) for each in asked}) == 1
    assert asked[0].state == "ok"
    assert asked[0].sessions >= 1
    assert asked[0].slots.left == asked[0].slots.max_connections - asked[0].slots.reserved - asked[0].slots.others > 0
    assert site.resources.snapshot().opened_total == 1
    postgres.freeze()
    try:
        time.sleep(LONGEST_AGE_SECONDS + 0.1)
        started = time.monotonic()
        assert ask_server(site.resources, timeout_seconds=0.2).state == "timeout"
        assert time.monotonic() - started < 1
    finally:
        postgres.thaw()
