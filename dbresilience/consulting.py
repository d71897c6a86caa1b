"""`manage.py dbresilience doctor`: what an operator types, and what they are shown."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, NamedTuple

from .capacity import declared_processes
from .doctor import consult
from .exit_codes import AWAY, NOT_WELL, WELL
from .findings import counts
from .plurals import number_of


class Verdict(NamedTuple):
    """What there is to say, for people and for programs, and the exit code."""

    text: str
    facts: dict[str, Any]
    code: int


def add_doctor(orders: Any) -> argparse.ArgumentParser:
    """Add the order to the parsers of the command."""
    doctor: argparse.ArgumentParser = orders.add_parser(
        "doctor",
        help="look at the settings and the live server, and say what to set",
        description="Findings come worst first, each with a line to paste. Opens one or two connections outside the "
        "pool. Exit codes: 0 nothing is wrong; 1 errors or warnings; 2 a wrong argument or setting; "
        "3 the database cannot be reached.",
    )
    doctor.add_argument(
        "--processes", type=_whole(least=1),
        help="web processes on all machines together (default: WEB_CONCURRENCY, else 1)",
    )  # fmt: skip
    doctor.add_argument(
        "--workers", type=_whole(least=0), default=1,
        help="other processes with a pool, such as task workers (default: 1)",
    )  # fmt: skip
    doctor.add_argument("--show-addresses", action="store_true", help="name the server's host and port")
    return doctor


def _whole(*, least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (text.isascii() and text.isdecimal() and int(text) >= least):
            raise argparse.ArgumentTypeError(f"{text!r}: give a whole number, {least} or more")
        return int(text)

    return parse


def carry_out(
    alias: str, say: Callable[[str], None], *, processes: int | None, workers: int, show_addresses: bool, **_: Any
) -> Verdict:
    """Consult the doctor; `say` hears each finding.

    Raises:
        OtherEngine: the alias uses another backend.
        ImproperlyConfigured: its settings are impossible.
    """
    declared = declared_processes(processes, workers)
    seen = consult(alias, declared, show_addresses=show_addresses)
    say(f"{alias!r} with {declared} ({declared.source}; --workers N for others).\n")
    for finding in seen.findings:
        say(str(finding))
    found = counts(seen.findings)
    text = f"{number_of(found['error'], 'error')}, {number_of(found['warning'], 'warning')}, {found['fine']} fine."
    facts = {"order": "doctor", **seen.as_json()}
    if not seen.reached:
        return Verdict(f"The database cannot be reached. {text}", facts, AWAY)
    if not seen.is_well:
        return Verdict(text, facts, NOT_WELL)
    return Verdict(f"Nothing is wrong. {text}", facts, WELL)
