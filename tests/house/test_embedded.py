"""The embedded server: made once, shared, repaired, stopped by the last one out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from config import embedded
from config.postgres import PostgresServer
from tests.settings import BASE_DIR
from tests.support.postgres import wait_until
from tests.support.site import site_environment

pytestmark = pytest.mark.slow

USE = """
import os, sys
from pathlib import Path
from config import embedded
server = embedded.join(Path(sys.argv[1]), database="chat")
print(server.process().pid if server.is_running() else 0, flush=True)
if sys.argv[2:] == ["fork"] and os.fork() == 0:
    sys.exit()
sys.stdin.read()
"""

User = subprocess.Popen[str]


@pytest.fixture
def data(var: Path) -> Path:
    return var / "postgres"


@pytest.fixture
def join(data: Path) -> Iterator[Callable[..., User]]:
    """`join()` starts a process that uses the server until its standard input ends."""
    started: list[User] = []

    def start(*arguments: str) -> User:
        user = subprocess.Popen(
            [sys.executable, "-c", USE, str(data), *arguments],
            cwd=BASE_DIR,
            env=site_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(user)
        return user

    yield start
    for user in started:
        user.kill()
        user.communicate()


def pid_seen_by(user: User) -> int:
    assert user.stdout
    return int(user.stdout.readline())


def leave(user: User) -> None:
    user.communicate(timeout=30)


def test_users_share_one_server_and_the_last_one_stops_it(data: Path, join: Callable[..., User]) -> None:
    """Whoever leaves first leaves the others their server."""
    first, second = join(), join()
    assert pid_seen_by(first) == pid_seen_by(second) > 0
    leave(first)
    server = PostgresServer(data)
    assert server.is_running()
    with psycopg.connect(server.url("chat")) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    leave(second)
    assert not server.is_running()
    assert not server.has_crashed()


def test_a_killed_user_leaves_nothing_stale(data: Path, join: Callable[..., User]) -> None:
    """The kernel drops a killed process's lock, so the next user is the last one out again."""
    first = join()
    running = pid_seen_by(first)
    first.kill()
    first.wait()
    second = join()
    assert pid_seen_by(second) == running
    leave(second)
    assert not PostgresServer(data).is_running()


def test_a_forked_child_does_not_stop_its_parents_server(data: Path, join: Callable[..., User]) -> None:
    """The child's exit handlers know that the server is not theirs."""
    parent = join("fork")
    pid_seen_by(parent)
    with pytest.raises(subprocess.TimeoutExpired):
        parent.wait(1)
    assert PostgresServer(data).is_running()
    leave(parent)
    assert not PostgresServer(data).is_running()


def test_a_killed_first_start_is_repaired(data: Path, join: Callable[..., User]) -> None:
    """What a killed initdb leaves is thrown away; the folder under its own name is always complete."""
    first = join()
    wait_until(lambda: list(data.parent.glob("postgres.new-*/base")), what="initdb")
    first.kill()
    first.wait()
    assert not data.exists()
    second = join()
    assert pid_seen_by(second) > 0
    assert not list(data.parent.glob("postgres.new-*"))


def test_stopped_on_purpose_stays_stopped_until_started(data: Path, join: Callable[..., User]) -> None:
    """`make db-stop` is not undone by the next process that starts."""
    first = join()
    pid_seen_by(first)
    assert "stopped" in embedded.stop(data)
    assert pid_seen_by(join()) == 0
    assert not embedded.restart_if_crashed(data)
    assert "again" in embedded.start(data, database="chat")
    assert "already" in embedded.start(data, database="chat")
    assert pid_seen_by(join()) > 0


def test_a_crash_is_told_from_a_stop(data: Path, join: Callable[..., User]) -> None:
    """A crashed server starts again, with its data."""
    pid_seen_by(join())
    server = PostgresServer(data)
    with psycopg.connect(server.url("chat"), autocommit=True) as connection:
        connection.execute("CREATE TABLE survivor ()")
    server.kill()
    assert server.has_crashed()
    assert embedded.restart_if_crashed(data)
    with psycopg.connect(server.url("chat")) as connection:
        assert connection.execute("SELECT count(*) FROM survivor").fetchone() == (0,)


def test_starting_without_users_explains_itself(data: Path) -> None:
    """A server nobody uses would never be stopped."""
    assert "make run" in embedded.start(data, database="chat")
    assert "not running" in embedded.stop(data)


def test_a_long_path_gets_its_socket_elsewhere(var: Path) -> None:
    """Unix socket paths end after 107 bytes; folders do not."""
    data = var / ("long" * 30) / "postgres"
    server = embedded.join(data, database="chat")
    try:
        assert len(os.fsencode(server.host)) < 107
        assert Path(server.host).stat().st_mode & 0o077 == 0
        with psycopg.connect(server.url("chat")) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    finally:
        embedded.leave(data)
    assert not server.is_running()


def test_a_stale_number_in_postmaster_pid_is_not_believed(data: Path, join: Callable[..., User]) -> None:
    """After a reboot the process number may belong to anything."""
    first = join()
    os.kill(pid_seen_by(first), signal.SIGKILL)
    server = PostgresServer(data)
    wait_until(lambda: not server.is_running(), what="the crash")
    lines = (data / "postmaster.pid").read_text().splitlines()
    (data / "postmaster.pid").write_text("\n".join([str(os.getpid()), *lines[1:]]))
    assert not server.is_running()


def test_sigterm_is_an_orderly_end(data: Path, join: Callable[..., User]) -> None:
    """A command ended from outside is the last one out like any other."""
    only = join()
    pid_seen_by(only)
    only.terminate()
    only.wait(30)
    assert not PostgresServer(data).is_running()
