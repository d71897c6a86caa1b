"""How many chat turns a second one gunicorn process serves while each waits for its model: 50 clients, a pool of 5."""

from __future__ import annotations

import http.client
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from config.postgres import PostgresServer
from tests.support.ports import free_port

from .setups import BASELINE, DATABASE, OURS, Settings

CLIENTS = 50
THREADS = 64
POOL_SIZE = 5
WARM_SECONDS = 1.0
TOGETHER = f"{OURS}, gather and pipeline"
"""The set-up whose turn is written with them."""


@dataclass(frozen=True)
class Outcome:
    """One run: turns a second, answers that were not 200, and the most sessions seen on the server."""

    rate: float
    errors: int
    sessions: int


def run(
    server: PostgresServer, database: Settings, *, model_seconds: float, seconds: float, path: str = "turn"
) -> Outcome:
    """Serve one set-up and ask it for `seconds`."""
    with served(database, model_seconds) as port:
        return ask(server, port, seconds, path)


@contextmanager
def served(database: Settings, model_seconds: float, **variables: str) -> Iterator[int]:
    """Run the site for the block; gives its port."""
    port = free_port()
    environment = os.environ | variables | {
        "BENCH_DATABASE": json.dumps(database),
        "BENCH_MODEL_SECONDS": str(model_seconds),
        "PGAPPNAME": application_name(port),
    }  # fmt: skip
    command = [sys.executable, "-m", "gunicorn", "benchmarks.turn_site:application", "--bind", f"127.0.0.1:{port}",
               "--threads", str(THREADS), "--log-level", "error", "--graceful-timeout", "2",
               "--keep-alive", "30", "--worker-class", "gthread"]  # fmt: skip
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_for(port)
        yield port
    finally:
        process.terminate()
        process.wait(timeout=20)


def application_name(port: int) -> str:
    """Return the name that tells the sessions of this run from those of others; PgBouncer passes it on."""
    return f"bench-{port}"


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("GET", "/turn/1")
            connection.getresponse().read()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def ask(server: PostgresServer, port: int, seconds: float, path: str = "turn") -> Outcome:
    """Let every client ask again and again for `seconds`, after a second in which they come at any moment."""
    answered = [0] * CLIENTS
    errors = [0] * CLIENTS
    begins = time.monotonic() + WARM_SECONDS
    ends = begins + seconds

    def client(number: int) -> None:
        time.sleep(random.random() * WARM_SECONDS)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
        while time.monotonic() < ends:
            connection.request("GET", f"/{path}/{number + 1}")
            response = connection.getresponse()
            response.read()
            now = time.monotonic()
            if begins <= now < ends:
                answered[number] += 1
                errors[number] += response.status != 200
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    sessions = 0
    with psycopg.connect(server.url(DATABASE), autocommit=True) as watcher:
        while any(thread.is_alive() for thread in threads):
            row = watcher.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [application_name(port)]
            ).fetchone()
            sessions = max(sessions, row[0] if row else 0)
            time.sleep(0.2)
    for thread in threads:
        thread.join()
    return Outcome(sum(answered) / seconds, sum(errors), sessions)


def table(title: str, outcomes: dict[str, list[Outcome]]) -> str:
    """Return medians, and the ratio of each run to the baseline's of the same round."""
    lines = [
        f"| {title} | turns a second | × {BASELINE} | lowest to highest | sessions | not 200 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, runs in outcomes.items():
        ratios = [mine.rate / base.rate for mine, base in zip(runs, outcomes[BASELINE], strict=True)]
        rate = statistics.median(run.rate for run in runs)
        lines.append(
            f"| {name} | {rate:.0f} | {statistics.median(ratios):.2f} | {min(ratios):.2f} to {max(ratios):.2f} "
            f"| {max(run.sessions for run in runs)} | {sum(run.errors for run in runs)} |"
        )
    return "\n".join([*lines, ""])
