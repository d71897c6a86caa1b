"""What a request pays for its connection: `make bench`, or `make bench ARGS="--rounds 5000"`.

Every set-up serves the same requests from the same table, in turn and in changing order, in one process on one
server. A request here is queries plus what Django does with the connection when a request ends; no HTTP, no template.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import django
import psycopg
import psycopg_pool
from django.conf import settings

from config import embedded
from config.startup import var_folder

DJANGO = "django.db.backends.postgresql"
OURS = "dbresilience"
# Each with the size of pool it has unless told otherwise; one request at a time needs one connection.
SETUPS: dict[str, dict[str, object]] = {
    "Django, no pool": {"ENGINE": DJANGO, "CONN_MAX_AGE": 0},
    "Django, persistent connections": {"ENGINE": DJANGO, "CONN_MAX_AGE": None},
    "Django, persistent, health checks": {"ENGINE": DJANGO, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
    "Django's pool": {"ENGINE": DJANGO, "OPTIONS": {"pool": True}},
    "dbresilience": {"ENGINE": OURS},
    "dbresilience, lease=request": {"ENGINE": OURS, "OPTIONS": {"resilience": {"lease": "request"}}},
}
BASELINE = "Django, persistent connections"
USERS = 100


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3000, help="measured requests of each kind (3000)")
    rounds = parser.parse_args().rounds
    server = embedded.join(var_folder() / "bench" / "postgres", database="bench", options={"fsync": "off"})
    aliases = {f"setup{number}": name for number, name in enumerate(SETUPS)}
    at = {"NAME": "bench", "USER": "postgres", "HOST": server.host, "PORT": "5432"}
    databases = {alias: SETUPS[name] | at for alias, name in aliases.items()}
    settings.configure(
        DATABASES={"default": {"ENGINE": DJANGO} | at, **databases},
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "dbresilience"],
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        SECRET_KEY="only-for-measuring",
        USE_TZ=True,
    )
    django.setup()
    _fill()
    with psycopg.connect(server.url("bench")) as connection:
        version = connection.info.parameter_status("server_version")
    print(
        f"Python {platform.python_version()}, Django {django.get_version()}, psycopg {psycopg.__version__}, "
        f"psycopg_pool {psycopg_pool.__version__}, PostgreSQL {version} on a Unix socket, {os.cpu_count()} CPUs, "
        f"{rounds} rounds, {time.strftime('%Y-%m-%d')}\n"
    )
    for title, work in (
        ("One get()", _one_get),
        ("Five queries", _five_queries),
        ("A transaction of two", _transaction),
    ):
        times = _measure(list(aliases), work, rounds)
        print(_table(title, {aliases[alias]: taken for alias, taken in times.items()}), flush=True)
    return 0


def _measure(aliases: list[str], work: Callable[[str, int], None], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {alias: [] for alias in aliases}
    order = list(aliases)
    for number in range(-50, rounds):
        # A fixed order would give each set-up the same neighbour's caches.
        random.shuffle(order)
        for alias in order:
            began = time.perf_counter()
            with _request(alias):
                work(alias, number % USERS + 1)
            taken = time.perf_counter() - began
            if number >= 0:
                times[alias].append(taken)
        if number % 500 == 0 and sys.stderr.isatty():
            print(f"\r  {number}/{rounds}", end="\r", file=sys.stderr, flush=True)
    return times


@contextmanager
def _request(alias: str) -> Iterator[None]:
    """What Django's request signals do, for this connection alone."""
    from django.db import connections

    connection = connections[alias]
    connection.queries_log.clear()
    connection.close_if_unusable_or_obsolete()
    yield
    connection.close_if_unusable_or_obsolete()


def _one_get(alias: str, number: int) -> None:
    from django.contrib.auth.models import User

    User.objects.using(alias).get(pk=number)


def _five_queries(alias: str, number: int) -> None:
    for step in range(5):
        _one_get(alias, (number + step) % USERS + 1)


def _transaction(alias: str, number: int) -> None:
    from django.contrib.auth.models import User
    from django.db import transaction

    with transaction.atomic(using=alias):
        user = User.objects.using(alias).get(pk=number)
        User.objects.using(alias).filter(pk=number).update(first_name=f"{user.first_name[:3]}{number}")


def _fill() -> None:
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connection

    call_command("migrate", verbosity=0)
    User.objects.all().delete()
    User.objects.bulk_create(User(pk=number, username=f"user{number}") for number in range(1, USERS + 1))
    connection.close()


def _table(title: str, times: dict[str, list[float]]) -> str:
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    lines = [
        f"| {title} | median µs | 95th percentile µs | × {BASELINE} |",
        "|---|---:|---:|---:|",
    ]
    for name, taken in times.items():
        late = statistics.quantiles(taken, n=20)[-1]
        ratio = medians[name] / medians[BASELINE]
        lines.append(f"| {name} | {medians[name] * 1e6:.0f} | {late * 1e6:.0f} | {ratio:.2f} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    sys.exit(main())
