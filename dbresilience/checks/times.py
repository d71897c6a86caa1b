"""Time-outs that contradict each other: the one that should ring first does not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dbresilience.aliases import Alias

from .rules import Mistake, alias_check

LONGEST_WAIT_SECONDS = 30.0
"""From here on, proxies give up before a wait for a connection does."""
_GUNICORN_TIMEOUT = re.compile(r"(?:^|\s)(?:--timeout[ =]|-t ?)(\d+)(?=\s|$)")


def _rounded(seconds: float) -> float:
    return round(seconds) if seconds >= 2 else max(round(seconds, 1), 0.1)


@alias_check("dbresilience.W008")
def check_wait_and_deadline(alias: Alias) -> Iterator[Mistake]:
    """`pool.timeout` that is not below `deadline_seconds`: a request that waits has no time left for its query."""
    wait, limit = alias.configuration.timeout, alias.configuration.deadline_seconds
    if alias.configuration.pooled and limit is not None and wait >= limit:
        yield Mistake(
            f"{alias.where}: a request may wait {wait:g} s for a connection (pool.timeout), and {limit:g} s for the "
            "database in total (deadline_seconds).",
            alias.option("pool", "timeout", _rounded(limit / 5)),
        )


@alias_check("dbresilience.W009")
def check_long_wait(alias: Alias) -> Iterator[Mistake]:
    """`pool.timeout` of 30 seconds or more: the proxy has answered 504 by then."""
    wait = alias.configuration.timeout
    if alias.configuration.pooled and wait >= LONGEST_WAIT_SECONDS:
        yield Mistake(
            f"{alias.where}: a request may wait {wait:g} s for a connection (pool.timeout). Proxies and people give "
            "up sooner, and each that waits occupies a thread.",
            alias.option("pool", "timeout", 5),
        )


@alias_check("dbresilience.W010")
def check_statement_and_deadline(alias: Alias) -> Iterator[Mistake]:
    """`statement_timeout_seconds` that is not below `deadline_seconds`: no statement of a request ever reaches it."""
    longest, limit = alias.configuration.statement_timeout_seconds, alias.configuration.deadline_seconds
    if longest is not None and limit is not None and longest >= limit:
        yield Mistake(
            f"{alias.where}: statement_timeout_seconds is {longest:g}, and a request is over after "
            f"deadline_seconds = {limit:g}: one statement may use up all of it.",
            f"{alias.option('resilience', 'statement_timeout_seconds', _rounded(limit * 2 / 3))}; give processes whose "
            "work is no request a URL of their own",
        )


@alias_check("dbresilience.W011")
def check_hosts_and_deadline(alias: Alias) -> Iterator[Mistake]:
    """several hosts, and the deadline is over before a dead one is given up."""
    connect, limit = alias.configuration.connect_timeout_seconds, alias.configuration.deadline_seconds
    others = len(alias.hosts) - 1
    if limit is not None and others and connect * others >= limit:
        yield Mistake(
            f"{alias.where} has {others + 1} hosts, and each that is dead costs connect_timeout_seconds = {connect:g}: "
            f"the last is tried after {connect * others:g} s, deadline_seconds is {limit:g}.",
            alias.option("resilience", "connect_timeout_seconds", max(2, int(limit / (others + 1) / 2))),
        )


@alias_check("dbresilience.W012")
def check_gunicorn(alias: Alias) -> Iterator[Mistake]:
    """`deadline_seconds` that is not below the `--timeout` in GUNICORN_CMD_ARGS, which kills the worker."""
    limit = alias.configuration.deadline_seconds
    found = _GUNICORN_TIMEOUT.search(os.environ.get("GUNICORN_CMD_ARGS", ""))
    if found is None or limit is None or not 0 < int(found[1]) <= limit:
        return
    yield Mistake(
        f"{alias.where}: deadline_seconds is {limit:g}, and gunicorn's --timeout is {found[1]}: it kills a worker of "
        "class sync, with its request, before the deadline answers 503.",
        alias.option("resilience", "deadline_seconds", _rounded(int(found[1]) / 2)),
    )


CHECKS = (
    check_wait_and_deadline, check_long_wait, check_statement_and_deadline, check_hosts_and_deadline, check_gunicorn,
)  # fmt: skip
