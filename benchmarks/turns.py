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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import psycopg

from config.postgres import PostgresServer
from tests.support.ports import free_port

from .setups import BASELINE, DATABASE, OURS, Settings

CLIENTS = 50
THREADS = 64
POOL_SIZE = 5
WARM_SECONDS = 0.5
SERVER_OPTIONS = {"max_connections": "400"}
"""All sites are up at once, and some of them keep a session for each thread."""

TOGETHER = f"{OURS}, gather and pipeline"
"""The set-up whose turn is written with them."""


@dataclass(frozen=True)
class Outcome:
    """One slice: turns a second, answers that were not 200, and the most sessions seen on the server."""

    rate: float
    errors: int
    sessions: int


def measure(
    server: PostgresServer, compared: dict[str, Settings], *, model_seconds: float, rounds: int, seconds: float
) -> dict[str, list[Outcome]]:
    """Ask every site for `seconds`, in changing order, again and again.

    All are up all the time: the speed of a machine that others use changes within seconds, and so do slices of the same
    round, but that does not favour one of them for as long as a run of its own would last.
    """
    with ExitStack() as stack:
        sites = {
            name: Site(stack.enter_context(served(database, model_seconds)), "together" if name == TOGETHER else "turn")
            for name, database in compared.items()
        }
        for site in sites.values():
            site.ask(server, 1.0)  # until its sessions are there and its threads run
        outcomes: dict[str, list[Outcome]] = {name: [] for name in compared}
        for number in range(rounds):
            for name in random.sample(list(sites), len(sites)):
                if sys.stderr.isatty():
                    print(f"\r  round {number + 1}: {name:40}", end="\r", file=sys.stderr, flush=True)
                outcomes[name].append(sites[name].ask(server, seconds))
        return outcomes


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
               "--keep-alive", "3600", "--worker-class", "gthread"]  # fmt: skip
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


class Site:
    """What the clients ask, each on one connection that it keeps."""

    def __init__(self, port: int, path: str = "turn") -> None:
        self._application_name = application_name(port)
        self._path = path
        self._connections = [http.client.HTTPConnection("127.0.0.1", port, timeout=90) for _ in range(CLIENTS)]

    def ask(self, server: PostgresServer, seconds: float, *, warm_seconds: float = WARM_SECONDS) -> Outcome:
        """Let every client ask again and again for `seconds`, after a time in which they come at any moment."""
        answered = [0] * CLIENTS
        errors = [0] * CLIENTS
        begins = time.monotonic() + warm_seconds
        ends = begins + seconds

        def client(number: int) -> None:
            time.sleep(random.random() * warm_seconds)
            while time.monotonic() < ends:
                status = self._turn(number)
                now = time.monotonic()
                if begins <= now < ends:
                    answered[number] += 1
                    errors[number] += status != 200

        threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        sessions = 0
        with psycopg.connect(server.url(DATABASE), autocommit=True) as watcher:
            while any(thread.is_alive() for thread in threads):
                row = watcher.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [self._application_name]
                ).fetchone()
                sessions = max(sessions, row[0] if row else 0)
                time.sleep(0.2)
        for thread in threads:
            thread.join()
        return Outcome(sum(answered) / seconds, sum(errors), sessions)

    def _turn(self, number: int) -> int:
        connection = self._connections[number]
        try:
            connection.request("GET", f"/{self._path}/{number + 1}")
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # dials again with the next request
            return 0
        return response.status


def table(title: str, outcomes: dict[str, list[Outcome]]) -> str:
    """Return medians, and the ratio of each slice to the baseline's of the same round."""
    lines = [
        f"| {title} | turns a second | × {BASELINE} | middle half | sessions | not 200 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, slices in outcomes.items():
        ratios = [mine.rate / base.rate for mine, base in zip(slices, outcomes[BASELINE], strict=True)]
        low, median, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        lines.append(
            f"| {name} | {statistics.median(each.rate for each in slices):.0f} | {median:.2f} "
            f"| {low:.2f} to {high:.2f} | {max(each.sessions for each in slices)} "
            f"| {sum(each.errors for each in slices)} |"
        )
    return "\n".join([*lines, ""])
