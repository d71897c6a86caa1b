"""Record the same outage on Django's own pool and on ours, and draw it: `make outage`.

Writes outage.png and outage.html into docs/images; `--redraw` draws the last recording again.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path

import psycopg

from config.startup import var_folder
from tests.support.postgres import ThrowawayPostgres

from . import turns
from .failing import failing_server, start_again
from .load import Answer, Load
from .picture import LABELS, LIGHT, LONGEST_SECONDS, Outage, Recording, draw, page, summary
from .setups import DATABASE, DJANGO, OURS

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
ENGINES = {"Django's own pool": DJANGO, "dbresilience": OURS}
# As in the README.
POOL = {"max_size": 10, "timeout": 5}
PER_SECOND = 20.0
MODEL_SECONDS = 0.1
BEFORE_SECONDS = 6.0
SAMPLE_SECONDS = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    parser.add_argument("--away-seconds", type=float, default=20, help="how long PostgreSQL is away (20)")
    parser.add_argument("--after-seconds", type=float, default=22, help="how long it is watched after that (22)")
    parser.add_argument("--images", type=Path, default=IMAGES, help="where the pictures go (docs/images)")
    parser.add_argument("--redraw", action="store_true", help="draw the last recording again")
    given = parser.parse_args()
    kept = var_folder() / "bench" / "outage.json"
    if given.redraw:
        told = json.loads(kept.read_text())
        outage = Outage(**told | {"recordings": [Recording(**each) for each in told["recordings"]]})
    else:
        outage = record(given.away_seconds, given.after_seconds)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(outage)))
    given.images.mkdir(parents=True, exist_ok=True)
    draw(outage, LIGHT).savefig(given.images / "outage.png", dpi=150)
    (given.images / "outage.html").write_text(page(outage))
    for recording in outage.recordings:
        print(f"{recording.name}: {summary(outage, recording)}")
    return 0


def record(away_seconds: float, after_seconds: float) -> Outage:
    """Let PostgreSQL go away once, under the same load on every set-up."""
    length = BEFORE_SECONDS + away_seconds + after_seconds
    with failing_server() as server, ExitStack() as stack:
        at = {"NAME": DATABASE, "USER": "postgres", "HOST": "127.0.0.1", "PORT": str(server.port)}
        databases = {name: at | {"ENGINE": engine, "OPTIONS": {"pool": POOL}} for name, engine in ENGINES.items()}
        ports = {name: stack.enter_context(turns.served(databases[name], MODEL_SECONDS)) for name in databases}
        with _watched(server, ports) as sessions, ExitStack() as asking:
            zero = time.monotonic()
            loads = {
                name: asking.enter_context(
                    Load(port, "/turn/1", per_second=PER_SECOND, patience_seconds=LONGEST_SECONDS)
                )
                for name, port in ports.items()
            }
            _say("PostgreSQL is there")
            time.sleep(BEFORE_SECONDS)
            _say(f"PostgreSQL is away for {away_seconds:g} s")
            begins = time.monotonic()
            server.stop("fast")
            time.sleep(max(0.0, begins + away_seconds - time.monotonic()))
            ends = start_again(server)
            _say("PostgreSQL is back")
            time.sleep(max(0.0, zero + length - time.monotonic()))
        outage = Outage(begins - zero, ends - zero, length, POOL, PER_SECOND, time.strftime("%Y-%m-%d"), _versions())
        for name, load in loads.items():
            answers = [(a.asked - zero, a.seconds, _kind(a)) for a in load.answers if a.asked - zero < length]
            seen = [(at - zero, counts[name]) for at, counts in sessions if zero <= at < zero + length]
            outage.recordings.append(Recording(name, sorted(answers), seen))
    return outage


def _kind(answer: Answer) -> str:
    """Any other status is as unexpected as a 500."""
    return answer.kind if answer.kind in LABELS else "500"


@contextmanager
def _watched(server: ThrowawayPostgres, ports: dict[str, int]) -> Iterator[list[tuple[float, dict[str, int]]]]:
    """Count the sessions of every set-up for the block; a server that is away has none."""
    samples: list[tuple[float, dict[str, int]]] = []
    stop = threading.Event()
    names = {turns.application_name(port): name for name, port in ports.items()}

    def watch() -> None:
        while not stop.wait(SAMPLE_SECONDS):
            counts = dict.fromkeys(ports, 0)
            try:
                with psycopg.connect(server.url(), autocommit=True, connect_timeout=2) as connection:
                    found = connection.execute(
                        "SELECT application_name, count(*) FROM pg_stat_activity "
                        "WHERE application_name = ANY(%s) GROUP BY 1",
                        [list(names)],
                    )
                    counts |= {names[name]: count for name, count in found}
            except psycopg.OperationalError:
                pass
            samples.append((time.monotonic(), counts))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        stop.set()
        watcher.join()


def _versions() -> str:
    names = ("Django", "psycopg", "psycopg-pool", "gunicorn")
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
