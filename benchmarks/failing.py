"""A PostgreSQL server that may be stopped and frozen, with the tables that the sites of the benchmarks ask."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.support.postgres import ThrowawayPostgres

from .setups import DATABASE, DJANGO

FILL = "import benchmarks.turn_site; from benchmarks.queries import fill; fill()"


@contextmanager
def failing_server() -> Iterator[ThrowawayPostgres]:
    """Run a new server for the block."""
    with ThrowawayPostgres() as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        database = {"ENGINE": DJANGO, "NAME": DATABASE, "USER": "postgres", "HOST": "127.0.0.1", "PORT": server.port}
        environment = os.environ | {"BENCH_DATABASE": json.dumps(database), "BENCH_MODEL_SECONDS": "0"}
        subprocess.run([sys.executable, "-c", FILL], env=environment, check=True)
        yield server


def start_again(server: ThrowawayPostgres) -> float:
    """Start the server; when it accepted a connection for the first time, by `time.monotonic()`."""
    accepted: list[float] = []

    def knock() -> None:
        while not accepted:
            try:
                psycopg.connect(server.url(DATABASE), connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.005)
            else:
                accepted.append(time.monotonic())

    knocking = threading.Thread(target=knock, daemon=True)
    knocking.start()
    server.start()
    knocking.join()
    return accepted[0]
