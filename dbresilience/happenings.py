"""What a signal means to whoever watches: which counter it raises, and what the time line says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from .errors import classify

Details = Mapping[str, Any]


class Happening(NamedTuple):
    """The counter that goes up, and the sentence for the time line; None where there is none."""

    counter: str | None
    text: str | None


_COUNTERS = {
    "pool_condemned": "condemned_total",
    "acquire_timed_out": "timed_out_total",
    "statement_overdue": "overdue_total",
    "unit_repeated": "repeated_total",
    "read_repeated": "repeated_total",
    "unit_given_up": "given_up_total",
    "slow_query": "slow_queries_total",
}

# Only names and numbers of ours: the text of an error may name a host.
_TEXTS: dict[str, Callable[[Details], str]] = {
    "breaker_opened": lambda about: f"The database is away ({about['classification']}): requests are refused",
    "breaker_closed": lambda about: f"The database is back after {about['open_seconds']:.1f} s",
    "pool_condemned": lambda about: f"Every connection is replaced: {about['reason']}",
    "pool_closed": lambda about: f"The pool was closed: {about['reason']}",
    "pool_paused": lambda about: f"Paused by an operator for up to {about['seconds']:.0f} s",
    "pool_resumed": lambda about: "The pause was ended",
    "acquire_timed_out": lambda about: (
        f"No connection {'could be opened' if about['could_not_connect'] else 'became free'}"
        f" within {about['waited_seconds']:.1f} s"
    ),
    "statement_overdue": lambda about: "A statement was cancelled at its deadline",
    "commit_looked_up": lambda about: f"An interrupted COMMIT was looked up: {about['outcome']}",
    "orphaned_session_ended": lambda about: "A session that COMMIT never reached was ended",
    "connection_failed": lambda about: f"A connection was refused: {classify(about['exception'])}",
}

HEARD = sorted({*_COUNTERS, *_TEXTS, "request_refused"})
"""The signals to listen to."""

_TELLING_FAILURES = {"server_full", "pooler_full", "credentials", "no_writer"}


def understand(name: str, about: Details) -> Happening:
    """Return what the signal of that name, with these details, means."""
    counter = _COUNTERS.get(name)
    if name == "request_refused":
        counter = "too_slow_total" if about["status"] == 504 else "refused_total"
    elif name == "acquire_timed_out" and about["could_not_connect"]:
        counter = None  # nothing was wrong with the size of the pool
    elif name == "commit_looked_up" and about["outcome"] == "unknown":
        counter = "commits_unknown_total"
    text = _TEXTS.get(name)
    return Happening(counter, text(about) if text is not None and not _is_routine(name, about) else None)


def _is_routine(name: str, about: Details) -> bool:
    """Whether another event says it already: the attempts of an outage, a pool that ends with its process."""
    if name == "pool_condemned":
        return bool(about["unreachable"] or about["reason"] == "paused")
    if name == "connection_failed":
        return classify(about["exception"]).name not in _TELLING_FAILURES
    return name == "pool_closed" and about["reason"] == "the process ends"
