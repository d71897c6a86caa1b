"""What a request pays for its connection, in one process: queries and what Django does when a request ends."""

from __future__ import annotations

import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .setups import BASELINE

USERS = 100
Work = Callable[[str, int], None]


def measure(aliases: list[str], work: Work, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of `rounds` requests on each alias, in turn and in changing order."""
    return interleaved({alias: bound(alias, work) for alias in aliases}, rounds, warm_rounds=50)


def bound(alias: str, work: Work) -> Callable[[int], None]:
    """Return `work` as a request of its own."""

    def one(number: int) -> None:
        with request(alias):
            work(alias, number)

    return one


def interleaved(
    works: dict[str, Callable[[int], None]], rounds: int, *, warm_rounds: int, in_a_row: int = 1
) -> dict[str, list[float]]:
    """Return the seconds of calls of each, in turn and in changing order; each is given a user's number.

    Args:
        works: what is called, by its name.
        rounds: measured calls of each.
        warm_rounds: at least so many calls of each before.
        in_a_row: how many of one are measured before it is another's turn. Where they are several, one goes before
            them that is not measured: a site has one set-up, and has its code in the processor's caches.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    order = list(works)
    for number in range(-math.ceil(warm_rounds / in_a_row) * in_a_row, rounds, in_a_row):
        # A fixed order would give each set-up the same neighbour's caches.
        random.shuffle(order)
        for name in order:
            for step in range(-(in_a_row > 1), min(in_a_row, rounds - number)):
                began = time.perf_counter()
                works[name]((number + step) % USERS + 1)
                taken = time.perf_counter() - began
                if number >= 0 and step >= 0:
                    times[name].append(taken)
        if number % 500 == 0 and sys.stderr.isatty():
            print(f"\r  {number}/{rounds}", end="\r", file=sys.stderr, flush=True)
    return times


@contextmanager
def request(alias: str) -> Iterator[None]:
    """What Django's request signals do, for this connection alone."""
    from django.db import connections

    connection = connections[alias]
    connection.queries_log.clear()
    connection.close_if_unusable_or_obsolete()
    yield
    connection.close_if_unusable_or_obsolete()


def one_get(alias: str, number: int) -> None:
    """One query by primary key."""
    from django.contrib.auth.models import User

    User.objects.using(alias).get(pk=number)


def five_gets(alias: str, number: int) -> None:
    """Five of them, outside a transaction."""
    for step in range(5):
        one_get(alias, (number + step) % USERS + 1)


def transaction(alias: str, number: int) -> None:
    """A read and a write in one block."""
    from django.contrib.auth.models import User
    from django.db.transaction import atomic

    with atomic(using=alias):
        user = User.objects.using(alias).get(pk=number)
        User.objects.using(alias).filter(pk=number).update(first_name=f"{user.first_name[:3]}{number}")


KINDS: dict[str, Work] = {"One get()": one_get, "Five get()": five_gets, "A transaction of two": transaction}


def fill(alias: str = "default") -> None:
    """Make the tables and their rows."""
    from django.contrib.auth.models import User
    from django.core.management import call_command
    from django.db import connections

    call_command("migrate", database=alias, verbosity=0)
    users = User.objects.using(alias)
    users.all().delete()
    users.bulk_create(User(pk=number, username=f"user{number}") for number in range(1, USERS + 1))
    connections[alias].close()


def table(title: str, times: dict[str, list[float]]) -> str:
    """Return medians, and ratios to the baseline of the same round with the middle half of their spread."""
    lines = [f"| {title} | median µs | × {BASELINE} | middle half |", "|---|---:|---:|---:|"]
    for name, taken in times.items():
        ratios = [mine / base for mine, base in zip(taken, times[BASELINE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(f"| {name} | {statistics.median(taken) * 1e6:.0f} | {middle:.3f} | {low:.2f} to {high:.2f} |")
    return "\n".join([*lines, ""])
