"""`make run`: it serves, survives PostgreSQL going away, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from config.postgres import PostgresServer
from tests.settings import BASE_DIR
from tests.support.devserver import Devserver
from tests.support.ports import free_port
from tests.support.postgres import wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def devserver(var: Path) -> Iterator[Devserver]:
    server = Devserver(var, free_port())
    server.wait_until_ready()
    yield server
    if server.process.poll() is None:
        server.process.terminate()
    server.process.wait(30)


def post(url: str, body: dict[str, str]) -> dict[str, str]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        answer: dict[str, str] = json.load(response)
        return answer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_and_leaves_nothing_behind(devserver: Devserver, var: Path, number: signal.Signals) -> None:
    """The demo user can log in; after Ctrl-C no process and no server is left."""
    assert post(f"{devserver.url}/api/auth/token", {"username": "demo", "password": "demo"})["token"]
    assert devserver.status("/") == 200
    started = psutil.Process(devserver.process.pid).children(recursive=True)
    assert len(started) >= 3
    devserver.process.send_signal(number)
    assert devserver.process.wait(30) == 0
    _, alive = psutil.wait_procs(started, timeout=5)
    assert not alive
    assert not PostgresServer(var / "postgres").is_running()
    assert "Traceback" not in devserver.said
    assert "Ctrl+C again" not in devserver.said


def test_the_site_survives_a_stop_and_a_crash(devserver: Devserver, var: Path) -> None:
    """Stopped on purpose: 503 until `make db-start`. Crashed: PostgreSQL is started again after five seconds."""
    wait_until(lambda: devserver.status("/readyz") == 200)  # it may still warm up
    assert "stopped" in devserver.database("stop")
    # The probe may repeat an answer for a second.
    wait_until(lambda: devserver.status("/readyz") == 503, what="the outage")
    assert devserver.status("/livez") == 200
    assert "again" in devserver.database("start")
    wait_until(lambda: devserver.status("/readyz") == 200, what="the recovery")
    PostgresServer(var / "postgres").kill()
    wait_until(lambda: devserver.status("/readyz") == 503, what="the crash")
    wait_until(lambda: devserver.status("/readyz") == 200, timeout_seconds=20, what="the restart")
    assert "PostgreSQL crashed" in devserver.said


def test_its_database_can_be_asked_by_hand(devserver: Devserver, var: Path) -> None:
    """psql of the same wheel, on the server of the running site."""
    env = os.environ | {"VAR_DIR": str(var)}
    command = [sys.executable, "-m", "config.database", "shell"]
    done = subprocess.run(command, cwd=BASE_DIR, env=env, input="TABLE auth_user", capture_output=True, text=True)
    assert "demo" in done.stdout, done.stderr


def test_a_second_one_shares_the_server(devserver: Devserver, var: Path) -> None:
    """Another port, the same data: the first one to end leaves the server to the other."""
    second = Devserver(var, free_port())
    second.wait_until_ready()
    devserver.process.terminate()
    assert devserver.process.wait(30) == 0
    assert second.status("/readyz") == 200
    assert (seconds := re.search(r"Ready after ([\d.]+) s", second.said))
    assert float(seconds[1]) < 15
    second.process.terminate()
    assert second.process.wait(30) == 0
    assert not PostgresServer(var / "postgres").is_running()


def test_killed_outright_it_still_takes_its_children_along(devserver: Devserver, var: Path) -> None:
    """SIGKILL cannot be handled; the kernel tells the children, and the last of them stops PostgreSQL."""
    started = psutil.Process(devserver.process.pid).children(recursive=True)
    devserver.process.kill()
    devserver.process.wait()
    _, alive = psutil.wait_procs(started, timeout=15)
    assert not alive
    wait_until(lambda: not PostgresServer(var / "postgres").is_running(), what="the end of PostgreSQL")


@pytest.mark.parametrize(("port", "says"), [("taken", "is taken"), ("many", "PORT is 'many'")])
def test_an_impossible_port_is_refused(var: Path, port: str, says: str) -> None:
    """Refused before anything is started."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        env = os.environ | {"VAR_DIR": str(var), "PORT": str(holder.getsockname()[1]) if port == "taken" else port}
        done = subprocess.run(
            [sys.executable, "-m", "config.devserver"], cwd=BASE_DIR, env=env, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert says in done.stderr
    assert not (var / "postgres").exists()
