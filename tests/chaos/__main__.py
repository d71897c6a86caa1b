"""`make chaos SEED=7 TURNS=10000`: people chat while PostgreSQL fails; then everything is counted.

The same seed asks the same questions and brings the same disturbances in the same order; what meets what is up to the
machine. Exits 1 with what is broken.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.chaos import trial
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import manage

DATABASE = "chaos"
# By how much a turn may be slower than it is on a slow machine without disturbances.
SECONDS_A_TURN = 0.2


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000), help="what happens (a new one)")
    parser.add_argument("--turns", type=int, default=1000, help="how many questions (1000)")
    parser.add_argument("--people", type=int, default=16, help="how many ask at the same time (16)")
    parser.add_argument("--worker-class", default="gthread", choices=["gthread", "asgi"], help="of gunicorn (gthread)")
    given = parser.parse_args()
    say(f"make chaos SEED={given.seed} TURNS={given.turns}: {given.people} people, {trial.WORKERS} processes, "
        f"pools of {trial.POOL_SIZE}")  # fmt: skip
    # A crash of ours is a killed process, not a machine without power: nothing needs to reach the disk. But a page may
    # be half written.
    with ThrowawayPostgres(full_page_writes="on") as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        manage("migrate", "--verbosity=0", database_url=server.url(DATABASE))
        report = trial.run(
            server,
            DATABASE,
            seed=given.seed,
            turns=given.turns,
            people=given.people,
            limit_seconds=60 + given.turns * SECONDS_A_TURN,
            worker_class=given.worker_class,
            say=say,
        )
    print(report)
    return 1 if report.broken else 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
