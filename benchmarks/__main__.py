"""Measure against what a team would use instead: `make bench`, or `make bench ARGS="--only queries --rounds 5000"`.

Every set-up serves the same requests on one server, in turn and in changing order; the figures are medians, and ratios
to persistent connections of the same round.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from contextlib import ExitStack

import django
from django.conf import settings

from config import embedded
from config.postgres import PostgresServer, program
from config.startup import var_folder

from . import crowd, instructions, life, metering, outages, promotion, queries, rtt, turns
from .setups import BASELINE, DATABASE, OURS, Settings, pgbouncer, setups

PACKAGES = ("Django", "psycopg", "psycopg-pool", "django-pg-real-pool", "django-db-connection-pool", "gunicorn")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        choices=["queries", "metrics", "instructions", "rtt", "turns", "crowd", "life", "outages"],
        help="one part (all)",
    )
    parser.add_argument("--rounds", type=int, default=3000, help="measured requests of each kind (3000)")
    parser.add_argument("--rtt-rounds", type=int, default=100, help="measured turns at a distance (100)")
    parser.add_argument("--turn-rounds", type=int, default=20, help="measured slices of turns (20)")
    parser.add_argument("--turn-seconds", type=float, default=2, help="length of each (2)")
    parser.add_argument("--life-rounds", type=int, default=15, help="how often processes start, part and end (15)")
    parser.add_argument("--outage-rounds", type=int, default=3, help="how often each short outage is made (3)")
    parser.add_argument("--short-seconds", type=float, default=8, help="length of each (8)")
    parser.add_argument("--away-seconds", type=float, default=120, help="length of the long outage (120)")
    parser.add_argument("--setup", action="append", help="only set-ups whose name contains this (all)")
    given = parser.parse_args()
    if given.only == "outages":
        print(_versions(given), flush=True)
        print(_outages(given), flush=True)
        return 0
    server = embedded.join(
        var_folder() / "bench" / "postgres", database=DATABASE, options=turns.SERVER_OPTIONS | {"fsync": "off"}
    )
    with ExitStack() as stack:
        bouncer = stack.enter_context(pgbouncer(server, turns.POOL_SIZE))
        compared = _chosen(setups(server, turns.POOL_SIZE, bouncer), given)
        near, distant, set_to_seconds = (
            stack.enter_context(rtt.near_and_far()) if given.only in (None, "rtt") else ({}, {}, 0.0)
        )
        aliases = {f"setup{number}": name for number, name in enumerate(compared)}
        near_aliases = {f"near{number}": name for number, name in enumerate(_chosen(near, given))}
        far_aliases = {f"far{number}": name for number, name in enumerate(_chosen(distant, given))}
        settings.configure(
            DATABASES={
                "default": compared[BASELINE],
                **{alias: compared[name] for alias, name in aliases.items()},
                **{alias: near[name] for alias, name in near_aliases.items()},
                **{alias: distant[name] for alias, name in far_aliases.items()},
            },
            INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "dbresilience", *rtt.APPS],
            DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
            SECRET_KEY="only-for-measuring",
            USE_TZ=True,
        )
        django.setup()
        queries.fill()
        print(_versions(given), flush=True)
        if given.only in (None, "queries"):
            for title, work in queries.KINDS.items():
                times = queries.measure(list(aliases), work, given.rounds)
                print(queries.table(title, {aliases[alias]: taken for alias, taken in times.items()}), flush=True)
        if given.only in (None, "metrics") and OURS in compared:
            (alias,) = (alias for alias, name in aliases.items() if name == OURS)
            print(metering.measure(alias, given.rounds), flush=True)
        if given.only in (None, "rtt"):
            rtt.fill(next(iter(near_aliases)))
            print(rtt.measure(near_aliases, far_aliases, set_to_seconds, given.rtt_rounds), flush=True)
        _close_all()
        if given.only in (None, "instructions"):
            table = instructions.measure(compared, list(queries.KINDS))
            print(table or "Instructions are not counted: there is no valgrind.\n", flush=True)
        if given.only in (None, "turns"):
            for model_seconds in (0.3, 0.1):
                _turns(server, compared, model_seconds, given)
        if given.only in (None, "crowd"):
            print(crowd.measure(server, given.turn_seconds * given.turn_rounds), flush=True)
        if given.only in (None, "life"):
            print(life.measure(compared, given.life_rounds), flush=True)
    if given.only is None:
        print(_outages(given), flush=True)
    return 0


def _chosen(compared: dict[str, Settings], given: argparse.Namespace) -> dict[str, Settings]:
    parts = given.setup or [""]
    return {name: at for name, at in compared.items() if name == BASELINE or any(part in name for part in parts)}


def _turns(
    server: PostgresServer, compared: dict[str, Settings], model_seconds: float, given: argparse.Namespace
) -> None:
    if OURS in compared:
        compared = compared | {turns.TOGETHER: compared[OURS]}
    outcomes = turns.measure(
        server, compared, model_seconds=model_seconds, rounds=given.turn_rounds, seconds=given.turn_seconds
    )
    title = f"{turns.CLIENTS} clients, a model of {model_seconds * 1000:.0f} ms, pools of {turns.POOL_SIZE}"
    print(turns.table(title, outcomes), flush=True)


def _outages(given: argparse.Namespace) -> str:
    only = given.setup or ()
    measured = outages.measure(
        rounds=given.outage_rounds, short_seconds=given.short_seconds, away_seconds=given.away_seconds, only=only
    )
    return f"{measured}\n{promotion.measure(outages.chosen(only))}"


def _close_all() -> None:
    from django.db import connections

    for connection in connections.all():
        connection.close()
        close_pool = getattr(connection, "close_pool", None)
        if close_pool is not None and connection.settings_dict.get("OPTIONS", {}).get("pool"):
            close_pool()


def _versions(given: argparse.Namespace) -> str:
    said = subprocess.run([program("postgres"), "--version"], capture_output=True, text=True, check=True).stdout
    socket = "on TCP" if given.only == "outages" else "on a Unix socket"
    packages = []
    for package in PACKAGES:
        try:
            packages.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            packages.append(f"{package} not installed")
    return (
        f"Python {platform.python_version()}, {', '.join(packages)}, PostgreSQL {said.split()[-1]} {socket}, "
        f"{os.cpu_count()} CPUs, {given.rounds} rounds, {time.strftime('%Y-%m-%d')}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
