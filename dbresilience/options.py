"""Every option of dbresilience, once: its name, type, default, unit and meaning.

`docs/reference/settings.md` is generated from `OPTIONS`; `conf` reads what is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from .parsers import function, function_or_path, one_of, optional, parse_boolean, path, seconds, whole_number

DEFAULT_MAX_SIZE = 10
DEFAULT_RETRY_AFTER_SECONDS = 2
IDLE_SECONDS_AT_ZERO = 10.0
UNDER_TESTS = {"timeout": 20.0, "warm_up": False}
"""Defaults of the test profile. Parallel tests that shared one server had 30 to 40 time-outs a run with 1 and 5 s."""


class Option(NamedTuple):
    """One option: where it stands (``pool`` or ``resilience``), its name, and what it means."""

    group: str
    name: str
    parse: Callable[[Any], Any]
    default: Any
    unit: str
    meaning: str
    in_url: tuple[str, ...] = ()
    secret: bool = False
    """Whether a wrong value may be a secret, which no error shows."""


# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("pool", "min_size", whole_number(0), 0, "connections",
           "Connections kept open while nothing is asked. 0 keeps none for longer than max_idle.",
           ("pool_min_size",)),
    Option("pool", "max_size", optional(whole_number(1)), DEFAULT_MAX_SIZE, "connections",
           "Most connections this process opens for this alias. None means as many as min_size, which "
           "is psycopg_pool's meaning, or the default if that is 0. The default gives way to a larger "
           "min_size.",
           ("pool_max_size", "connection_limit")),
    Option("pool", "timeout", seconds(), 10.0, "seconds",
           "Longest wait for a free connection; then 503.", ("pool_timeout",)),
    Option("pool", "max_waiting", whole_number(0), 0, "requests",
           "Most requests that may wait for a connection; one more gets 503 at once. "
           "0 means no limit.", ("pool_max_waiting",)),
    Option("pool", "max_lifetime", seconds(), 3600.0, "seconds",
           "Age at which a connection is replaced, less up to 5 % at random.",
           ("pool_max_lifetime",)),
    Option("pool", "max_idle", seconds(), 600.0, "seconds",
           "Period after which one connection above min_size that was not needed is closed.",
           ("pool_max_idle",)),
    Option("pool", "reconnect_timeout", seconds(zero_allowed=True), 300.0, "seconds",
           "How long the pool goes on trying by itself to replace a lost connection while others "
           "still work. With none left, each request tries again at once.",
           ("pool_reconnect_timeout",)),
    Option("pool", "num_workers", whole_number(1), 3, "threads",
           "Background threads that open and replace connections.", ("pool_num_workers",)),
    Option("pool", "check", optional(function), None, "",
           "As in psycopg_pool: called with each connection before it is lent, beside our own look at "
           "its socket. `ConnectionPool.check_connection` costs a round trip each time."),
    Option("pool", "reset", optional(function), None, "",
           "As in psycopg_pool: called with each connection that comes back."),
    Option("pool", "reconnect_failed", optional(function), None, "",
           "As in psycopg_pool: called with its pool when `reconnect_timeout` has passed."),
    Option("pool", "name", optional(str), None, "",
           "Name of the pool's threads, after `dbresilience-`; the alias if absent."),
    Option("resilience", "lease", one_of("transaction", "request"), "transaction", "",
           "When a connection goes back: at the end of the query or transaction, or at the end of "
           "the request as with Django's own pool.", ("lease",)),
    Option("resilience", "deadline_seconds", optional(seconds()), 60.0, "seconds",
           "Longest time one request may wait for the database in total: for connections, for "
           "statements and between attempts. Then what runs is cancelled, also on a server that does not "
           "answer. Once a streamed response has begun, each statement has all of it. Work outside requests has "
           "none; see `dbresilience.deadline`. None means no limit.",
           ("deadline_seconds",)),
    Option("resilience", "retry_attempts", whole_number(1), 3, "attempts",
           "How often, at most, a unit marked by `retry` runs, and a read outside a transaction whose connection was "
           "lost. 1 never repeats anything.", ("retry_attempts",)),
    Option("resilience", "commit_lookup", parse_boolean, True, "",
           "Whether the first statement of a transaction that changes rows brings back the transaction's id, with "
           "which the outcome of an interrupted COMMIT is looked up. Costs no round trip, but 25 to 30 µs for each "
           "transaction that writes, half of them on the server; and one round trip for each new connection, which "
           "finds out whether its server can tell. With `server_side_binding` only units "
           "marked by `retry` are looked up, for a round trip each.",
           ("commit_lookup",)),
    Option("resilience", "slow_query_seconds", optional(seconds(zero_allowed=True)), "auto",
           "seconds",
           "Statements that take at least this long are logged. None turns the log off; absent "
           "means 0.2 with DEBUG and 1.0 without.", ("slow_query_seconds",)),
    Option("resilience", "slow_query_parameters", parse_boolean, False, "",
           "Whether the slow-query log shows the parameters of the statement.",
           ("slow_query_parameters",)),
    Option("resilience", "statement_timeout_seconds", optional(seconds()), None, "seconds",
           "PostgreSQL's statement_timeout for every connection. None leaves the server's own.",
           ("statement_timeout_seconds",)),
    Option("resilience", "client_check_seconds", optional(seconds()), 1.0, "seconds",
           "PostgreSQL's client_connection_check_interval: how often the server looks, while a statement runs, whether "
           "who asked for it is still there, so that what a killed process asked for ends. Needs PostgreSQL 14; "
           "what is set for the role, the database or the server goes first. None leaves it alone.",
           ("client_check_seconds",)),
    Option("resilience", "connect_timeout_seconds", seconds(at_least=2), 10.0, "seconds",
           "libpq's connect_timeout, for each address of the server; rounded to whole seconds.",
           ("connect_timeout",)),
    Option("resilience", "password", optional(function_or_path), None, "",
           "A function without arguments, or the dotted path to one, that returns the password. Called for each "
           "physical connection, and once more if the server refuses what it returned. PASSWORD may be a "
           "function, too.", secret=True),
    Option("resilience", "password_file", optional(path), None, "",
           "A file with the password, read for each physical connection, and once more if the server refuses "
           "what was in it. A line break at its end does not count.", ("password_file",)),
    Option("resilience", "runtime_folder", optional(path), None, "",
           "Folder of `manage.py dbresilience pause`, the same for all processes of this machine, theirs alone. "
           "None means `dbresilience-<uid>` in the folder for temporary files.", ("runtime_folder",)),
    Option("resilience", "warm_up", parse_boolean, True, "",
           "Whether a process that serves requests opens its first connection and asks its first query while it "
           "starts. Management commands never do, nor does anything under tests.",
           ("warm_up",)),
    Option("resilience", "warm_up_with", optional(function_or_path), None, "",
           "A function without arguments, or the dotted path to one, that asks what a first request would ask; "
           "called again for 0.1 s, nine times at most, as Python is quick at what it has done. None reads one user.",
           ("warm_up_with",)),
    Option("resilience", "scale_to_zero", parse_boolean, False, "",
           "For processes that are to be silent while nobody asks: no warm-up, no connection kept open, and idle ones "
           f"closed after {IDLE_SECONDS_AT_ZERO:g} s if max_idle is not given.",
           ("scale_to_zero",)),
    Option("resilience", "log_addresses", parse_boolean, False, "",
           "Whether connection errors in logs name the server's host and address.",
           ("log_addresses",)),
    Option("resilience", "retry_after_seconds", whole_number(1), DEFAULT_RETRY_AFTER_SECONDS, "seconds",
           "Retry-After of a 503, unless the error knows better.", ("retry_after_seconds",)),
)
# fmt: on
