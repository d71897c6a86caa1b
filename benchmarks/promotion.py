"""How soon each set-up writes again when the primary has crashed and its standby was promoted; no site is restarted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass

import psycopg

from tests.support.standby import Standby

from . import turns
from .failing import failing_server
from .load import Load
from .setups import setups

POOL_SIZE = 5
POOL_TIMEOUT_SECONDS = 10.0
WITHOUT_PRIMARY_SECONDS = 8.0
LONGEST_RECOVERY_SECONDS = 60.0
# One request of it writes twice.
PATH = "/turn/1"


@dataclass(frozen=True)
class Promotion:
    """`back_seconds` after the promotion came the first 200; `answers` are those from the crash until then."""

    back_seconds: float
    answers: Counter[str]


def measure(compared: Iterable[str]) -> str:
    """Return the table; PgBouncer is not in it, because somebody has to tell it the new primary."""
    found: dict[str, Promotion] = {}
    with failing_server() as primary, Standby(primary) as standby, ExitStack() as sites:
        known = setups(
            primary.server, POOL_SIZE, None, min_size=POOL_SIZE, timeout_seconds=POOL_TIMEOUT_SECONDS
        )  # fmt: skip
        both = {"HOST": "127.0.0.1,127.0.0.1", "PORT": f"{primary.port},{standby.port}"}
        ports: dict[str, int] = {}
        for name in compared:
            if name in known:
                options = known[name].get("OPTIONS", {}) | {"target_session_attrs": "read-write"}
                database = known[name] | both | {"OPTIONS": options}
                ports[name] = sites.enter_context(turns.served(database, model_seconds=0))
        with ExitStack() as asking:
            loads = {
                name: asking.enter_context(Load(port, PATH, per_second=20, patience_seconds=30, at_once=40))
                for name, port in ports.items()
            }
            time.sleep(1)
            standby.wait_until_same()
            crashed = time.monotonic()
            primary.kill()
            time.sleep(WITHOUT_PRIMARY_SECONDS)
            promoted = _promote(standby)
            while len(found) < len(loads) and time.monotonic() < promoted + LONGEST_RECOVERY_SECONDS:
                for name, load in loads.items():
                    first = load.first_after(promoted) if name not in found else None
                    if first is not None:
                        load.stop()
                        between = Counter(answer.kind for answer in load.answers if crashed < answer.at < first.at)
                        found[name] = Promotion(first.at - promoted, between)
                time.sleep(0.01)
    return table({name: found[name] for name in ports if name in found})


def _promote(standby: Standby) -> float:
    """Return when it accepted writes, by `time.monotonic()`."""
    with psycopg.connect(standby.url(), autocommit=True) as connection:
        connection.execute("SELECT pg_promote(wait => false)")
        while connection.execute("SELECT pg_is_in_recovery()").fetchone() == (True,):
            time.sleep(0.005)
    return time.monotonic()


def table(found: dict[str, Promotion]) -> str:
    what = f"two hosts, the primary crashes, {WITHOUT_PRIMARY_SECONDS:g} s later the standby is promoted"
    lines = [f"| {what} | first write after that, s | answers until then |", "|---|---:|---|"]
    for name, promotion in found.items():
        answers = ", ".join(f"{kind} × {many}" for kind, many in promotion.answers.most_common())
        lines.append(f"| {name} | {promotion.back_seconds:.2f} | {answers} |")
    return "\n".join([*lines, ""])
