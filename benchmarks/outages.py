"""What each way of connecting makes of the same outages: all of them are served beside each other, on one server.

Frozen for 8 seconds; away for 8 and for 120; every idle session of a pool terminated.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg

from tests.support.postgres import ThrowawayPostgres

from . import turns
from .failing import failing_server, start_again
from .load import Answer, Load, ask
from .setups import OURS, Settings, pgbouncer, setups

COMPARED = (
    "Django, no pool",
    "Django's pool",
    "Django's pool, health checks",
    "django-pg-real-pool",
    "django-pg-real-pool, health checks",
    "PgBouncer, transaction mode",
    OURS,
)
POOL_SIZE = 5
POOL_TIMEOUT_SECONDS = 10.0
DEADLINE_SECONDS = 2.0
NEXT_REQUESTS = 20
PATIENCE_SECONDS = 30.0
LONGEST_RECOVERY_SECONDS = 60.0
PATH = "/look/1"


@dataclass
class Figures:
    """What one set-up did, round by round."""

    port: int
    frozen_p99_seconds: list[float] = field(default_factory=list)
    frozen_answers: Counter[str] = field(default_factory=Counter)
    away_p99_seconds: list[float] = field(default_factory=list)
    away_answers: Counter[str] = field(default_factory=Counter)
    back_seconds: list[float] = field(default_factory=list)
    back_after_long_seconds: list[float] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    longest_seconds: list[float] = field(default_factory=list)


def measure(*, rounds: int, short_seconds: float, away_seconds: float, only: Iterable[str] = ()) -> str:
    """Return the table.

    Args:
        rounds: how often everything but the long outage is done; the table has medians.
        short_seconds: how long the server is frozen, and away in each of the rounds.
        away_seconds: length of the long outage.
        only: parts of names of set-ups; all if empty.
    """
    with failing_server() as server, _served(server, only) as sites:
        _all_well(sites)
        for number in range(rounds):
            _say(f"round {number + 1}: frozen for {short_seconds:g} s")
            _freeze(server, sites, short_seconds)
            _say(f"round {number + 1}: away for {short_seconds:g} s")
            for name, back in _go_away(server, sites, short_seconds, per_second=5).items():
                sites[name].back_seconds.append(back)
            _say(f"round {number + 1}: idle sessions terminated")
            _terminate(server, sites)
        _say(f"away for {away_seconds:g} s")
        for name, back in _go_away(server, sites, away_seconds, per_second=2, note_answers=True).items():
            sites[name].back_after_long_seconds.append(back)
    return table(sites, short_seconds, away_seconds)


def chosen(only: Iterable[str] = ()) -> list[str]:
    """Return the names of the set-ups that contain one of `only`; all if that is empty."""
    parts = list(only)
    return [name for name in COMPARED if not parts or any(part in name for part in parts)]


@contextmanager
def _served(server: ThrowawayPostgres, only: Iterable[str]) -> Iterator[dict[str, Figures]]:
    with ExitStack() as stack:
        bouncer = stack.enter_context(pgbouncer(server.server, POOL_SIZE))
        compared = setups(
            server.server, POOL_SIZE, bouncer, min_size=POOL_SIZE, timeout_seconds=POOL_TIMEOUT_SECONDS
        )  # fmt: skip
        names = [name for name in chosen(only) if name in compared]
        yield {
            name: Figures(stack.enter_context(turns.served(_with_deadline(name, compared[name]), model_seconds=0)))
            for name in names
        }


def _with_deadline(name: str, database: Settings) -> Settings:
    if name != OURS:
        return database
    return database | {"OPTIONS": database["OPTIONS"] | {"resilience": {"deadline_seconds": DEADLINE_SECONDS}}}


def _freeze(server: ThrowawayPostgres, sites: dict[str, Figures], seconds: float) -> None:
    with ExitStack() as stack:
        loads = {
            name: stack.enter_context(Load(figures.port, PATH, per_second=5, patience_seconds=PATIENCE_SECONDS))
            for name, figures in sites.items()
        }
        time.sleep(1)
        begins = time.monotonic()
        server.freeze()
        time.sleep(seconds)
        ends = time.monotonic()
        server.thaw()
    for name, load in loads.items():
        answers = load.asked_between(begins, ends)
        sites[name].frozen_p99_seconds.append(_p99(answers))
        sites[name].frozen_answers.update(answer.kind for answer in answers)
    _all_well(sites)


def _go_away(
    server: ThrowawayPostgres,
    sites: dict[str, Figures],
    seconds: float,
    *,
    per_second: float,
    note_answers: bool = False,
) -> dict[str, float]:
    """Return how long after the server accepted again the first 200 came, for each set-up."""
    with ExitStack() as stack:
        loads = {
            name: stack.enter_context(
                Load(figures.port, PATH, per_second=per_second, patience_seconds=PATIENCE_SECONDS, at_once=40)
            )
            for name, figures in sites.items()
        }
        time.sleep(1)
        server.stop("fast")
        begins = time.monotonic()
        time.sleep(seconds - 1)
        # Denser, so that the moment at which it is back is seen.
        for load in loads.values():
            load.per_second = 20
        time.sleep(1)
        accepted = start_again(server)
        back = dict.fromkeys(loads, LONGEST_RECOVERY_SECONDS)
        waiting = dict(loads)
        while waiting and time.monotonic() < accepted + LONGEST_RECOVERY_SECONDS:
            for name, load in list(waiting.items()):
                if first := load.first_after(accepted):
                    back[name] = first.at - accepted
                    waiting.pop(name).stop()
            time.sleep(0.01)
    if note_answers:
        # Those of the last seconds may have been answered by a server that was back.
        known = begins + 1, max(begins + 2, begins + seconds - POOL_TIMEOUT_SECONDS - 2)
        for name, load in loads.items():
            answers = load.asked_between(*known)
            sites[name].away_p99_seconds.append(_p99(answers))
            sites[name].away_answers.update(answer.kind for answer in answers)
    _all_well(sites)
    return back


def _terminate(server: ThrowawayPostgres, sites: dict[str, Figures]) -> None:
    with ThreadPoolExecutor(20 * len(sites)) as executor:
        # So many at once that every pool has all its connections.
        list(executor.map(lambda port: ask(port, "/turn/1", patience_seconds=PATIENCE_SECONDS),
                          [figures.port for figures in sites.values() for _ in range(20)]))  # fmt: skip
    time.sleep(0.5)
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = ANY(%s) AND state = 'idle'",
            [[turns.application_name(figures.port) for figures in sites.values()]],
        )
    time.sleep(0.5)

    def next_requests(figures: Figures) -> None:
        failed, longest = 0, 0.0
        for _ in range(NEXT_REQUESTS):
            began = time.monotonic()
            failed += ask(figures.port, PATH, patience_seconds=PATIENCE_SECONDS) != "200"
            longest = max(longest, time.monotonic() - began)
        figures.failed.append(failed)
        figures.longest_seconds.append(longest)

    with ThreadPoolExecutor(len(sites)) as executor:
        list(executor.map(next_requests, sites.values()))
    _all_well(sites)


def _all_well(sites: dict[str, Figures]) -> None:
    """Wait until each answers ten times in a row, so that no round begins with the end of another."""
    deadline = time.monotonic() + 2 * LONGEST_RECOVERY_SECONDS
    for name, figures in sites.items():
        in_a_row = 0
        while in_a_row < 10:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer any more although the server is well")
            well = ask(figures.port, "/turn/1", patience_seconds=PATIENCE_SECONDS) == "200"
            in_a_row = in_a_row + 1 if well else 0


def _p99(answers: list[Answer]) -> float:
    ordered = sorted(answer.seconds for answer in answers)
    return ordered[int(len(ordered) * 0.99)] if ordered else float("nan")


def table(sites: dict[str, Figures], short_seconds: float, away_seconds: float) -> str:
    """Return medians of the rounds, the worst round after a slash, and every kind of answer that was seen."""
    heads = (
        f"pools of {POOL_SIZE}, their time-out {POOL_TIMEOUT_SECONDS:g} s, deadline {DEADLINE_SECONDS:g} s",
        f"frozen for {short_seconds:g} s: p99 s", "answers", "away: p99 s", "answers",
        f"first 200 after {short_seconds:g} s away, s", f"after {away_seconds:g} s away, s",
        f"idle sessions terminated: failed of {NEXT_REQUESTS}", "longest s",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---|---:|---|---:|---:|---:|---:|"]
    for name, figures in sites.items():
        cells = (
            name, _median_and_worst(figures.frozen_p99_seconds), _kinds(figures.frozen_answers),
            f"{_median(figures.away_p99_seconds):.3f}", _kinds(figures.away_answers),
            _median_and_worst(figures.back_seconds), f"{_median(figures.back_after_long_seconds):.2f}",
            f"{_median(figures.failed):g}", f"{_median(figures.longest_seconds):.2f}",
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _median_and_worst(figures: list[float]) -> str:
    return f"{_median(figures):.2f} / {max(figures, default=float('nan')):.2f}"


def _median(figures: list[float] | list[int]) -> float:
    return statistics.median(figures) if figures else float("nan")


def _kinds(answers: Counter[str]) -> str:
    return ", ".join(f"{kind} × {many}" for kind, many in answers.most_common())


def _say(what: str) -> None:
    if sys.stderr.isatty():
        print(f"\r  {what:60}", end="\r", file=sys.stderr, flush=True)
