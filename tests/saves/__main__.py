"""`make reload-check SAVES=200`: files are saved under each server that loads code anew, while somebody asks.

Exits 1 if a request failed that was not refused while no process listened, if there were more sessions than one pool
has, or if any was left.
"""

from __future__ import annotations

import argparse
import sys

from tests.saves import trial
from tests.saves.project import SERVERS
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import manage

DATABASE = "saves"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.saves", description=__doc__)
    parser.add_argument("--saves", type=int, default=200, help="under runserver; a tenth under each other (200)")
    parser.add_argument("--server", action="append", choices=SERVERS, help="only this one, with all saves")
    given = parser.parse_args()
    trials = [(server, given.saves) for server in given.server or []] or [
        (server, given.saves if server == "runserver" else max(3, given.saves // 10)) for server in SERVERS
    ]
    broken: list[str] = []
    with ThrowawayPostgres() as server:
        server.execute(f"CREATE DATABASE {DATABASE}")
        manage("migrate", "--verbosity=0", database_url=server.url(DATABASE))
        for name, saves in trials:
            say(f"{name}: {saves} saves")
            report = trial.run(server, DATABASE, server=name, saves=saves, say=say)
            say(f"{report}")
            broken += [f"{name}: {each}" for each in report.broken]
        saves = min(5, given.saves)
        say(f"runserver, while a query of 30 s runs: {saves} saves")
        report = trial.run(server, DATABASE, server="runserver", saves=saves, slow_seconds=30, say=say)
        say(f"{report}")
        broken += [f"runserver with a slow query: {each}" for each in report.broken]
    for each in broken:
        say(f"BROKEN: {each}")
    if not broken:
        say("Held: never more sessions than one pool has, none left, and under runserver nobody was cut off.")
    return 1 if broken else 0


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
