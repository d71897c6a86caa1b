"""Every option of dbresilience, once: its name, type, default, unit and meaning.

`Configuration.from_settings()` turns one entry of ``settings.DATABASES`` into a frozen
`Configuration`; `docs/reference/settings.md` is generated from `OPTIONS`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, NamedTuple

import psycopg
from django.core.exceptions import ImproperlyConfigured

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
           "A function without arguments, or the dotted path to one, that asks what a first request would ask. None "
           "reads one user."),
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

_BY_URL_NAME = {url_name: option for option in OPTIONS for url_name in option.in_url}
OUR_KEYS = frozenset({"pool", "resilience", *_BY_URL_NAME})
DJANGOS_KEYS = frozenset({"assume_role", "isolation_level", "server_side_binding"})
WRITERS = ("read-write", "primary")
READERS = ("read-only", "standby", "prefer-standby")
SERVERS_WANTED = ("any", *WRITERS, *READERS)
"""libpq's target_session_attrs: which of several servers is to be had."""
PSYCOPGS_KEYS = frozenset({"autocommit", "context", "cursor_factory", "prepare_threshold", "row_factory"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """The checked options of one database alias; the fields are described by `OPTIONS`."""

    pooled: bool
    min_size: int
    max_size: int
    timeout: float
    max_waiting: int
    max_lifetime: float
    max_idle: float
    reconnect_timeout: float
    num_workers: int
    check: Callable[..., Any] | None
    reset: Callable[..., Any] | None
    reconnect_failed: Callable[..., Any] | None
    name: str | None
    lease: str
    deadline_seconds: float | None
    retry_attempts: int
    commit_lookup: bool
    slow_query_seconds: float | None
    slow_query_parameters: bool
    statement_timeout_seconds: float | None
    client_check_seconds: float | None
    connect_timeout_seconds: float
    password: Callable[[], Any] | str | None = field(repr=False)
    password_file: str | None
    runtime_folder: str | None
    warm_up: bool
    warm_up_with: Callable[[], Any] | str | None
    scale_to_zero: bool
    log_addresses: bool
    retry_after_seconds: int

    @classmethod
    def from_settings(
        cls, alias: str, settings_dict: Mapping[str, Any], *, debug: bool, testing: bool = False
    ) -> Configuration:
        """Check the options of one alias.

        Args:
            alias: its name, for errors.
            settings_dict: its entry in ``settings.DATABASES``.
            debug: ``settings.DEBUG``, which decides on some defaults.
            testing: whether the defaults are those of the test profile.

        Raises:
            ImproperlyConfigured: an option is unknown or its value impossible; the text names it.
        """
        options = settings_dict.get("OPTIONS") or {}
        pooled, given = _pool_options(alias, options.get("pool"))
        given |= _named_options(alias, "resilience", options.get("resilience") or {})
        for key, value in options.items():
            if key not in _known_options():
                raise ImproperlyConfigured(_unknown(f"DATABASES[{alias!r}]: OPTIONS", key, _known_options()))
            if key in _BY_URL_NAME:
                option = _BY_URL_NAME[key]
                _set_once(alias, given, option, f"OPTIONS[{key!r}]", value)
        if options.get("target_session_attrs", "any") not in SERVERS_WANTED:
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]: OPTIONS['target_session_attrs'] is {options['target_session_attrs']!r}. "
                f"Give one of {', '.join(SERVERS_WANTED)}."
            )
        _refuse_two_passwords(alias, settings_dict, given)
        values = {option.name: option.default for option in OPTIONS} | (UNDER_TESTS if testing else {}) | given
        if values["scale_to_zero"]:
            values |= _silent(alias, given)
        if values["max_size"] is None:
            values["max_size"] = values["min_size"] or DEFAULT_MAX_SIZE
        elif "max_size" not in given:
            values["max_size"] = max(DEFAULT_MAX_SIZE, values["min_size"])
        if values["min_size"] > values["max_size"]:
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]: pool min_size {values['min_size']} is above max_size "
                f"{values['max_size']}. Lower min_size or raise max_size."
            )
        if values["slow_query_seconds"] == "auto":
            values["slow_query_seconds"] = 0.2 if debug else 1.0
        return cls(pooled=pooled, **values)

    def pool_arguments(self) -> dict[str, Any]:
        """Return the keyword arguments for `psycopg_pool.ConnectionPool`."""
        names = {option.name for option in OPTIONS if option.group == "pool"} - {"name"}
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name in names}


@cache
def _known_options() -> frozenset[str]:
    """Return what may stand in OPTIONS: ours, Django's, psycopg's and libpq's."""
    libpq = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    return OUR_KEYS | DJANGOS_KEYS | PSYCOPGS_KEYS | libpq


def _unknown(where: str, name: str, known: Iterable[str]) -> str:
    alike = difflib.get_close_matches(str(name), known, n=1)
    hint = f"Did you mean {alike[0]!r}?" if alike else f"Known: {', '.join(sorted(known))}."
    return f"{where} has no option {name!r}. {hint}"


def _pool_options(alias: str, value: Any) -> tuple[bool, dict[str, Any]]:
    """Read ``OPTIONS["pool"]``: a bool, a word, JSON from a URL, or a mapping."""
    if value is None:
        return True, {}
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise ImproperlyConfigured(f"DATABASES[{alias!r}]: OPTIONS['pool'] is not valid JSON: {error}.") from error
    if isinstance(value, Mapping):
        return True, _named_options(alias, "pool", value)
    try:
        return parse_boolean(value), {}
    except ValueError:
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]: OPTIONS['pool'] is {value!r}. Give True, False, or a dict "
            "with psycopg_pool's names such as {'max_size': 10}."
        ) from None


def _silent(alias: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `scale_to_zero` means for the other options."""
    for name, why in (("min_size", "keeps connections open"), ("warm_up", "opens one at the start")):
        if given.get(name):
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]: scale_to_zero wants a process that is silent while nobody asks, and {name} "
                f"{given[name]!r} {why}. Remove one of the two."
            )
    return {"warm_up": False, "max_idle": given.get("max_idle", IDLE_SECONDS_AT_ZERO)}


def _named_options(alias: str, group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: OPTIONS[{group!r}] is {values!r}. Give a dict of options.")
    known = {option.name: option for option in OPTIONS if option.group == group}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ImproperlyConfigured(_unknown(f"DATABASES[{alias!r}]: OPTIONS[{group!r}]", name, known))
        _set_once(alias, given, known[name], f"OPTIONS[{group!r}][{name!r}]", value)
    return given


def _set_once(alias: str, given: dict[str, Any], option: Option, where: str, value: Any) -> None:
    try:
        parsed = option.parse(value)
    except (TypeError, ValueError, OverflowError) as error:
        said = "" if option.secret else f" is {value!r}"
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: {where}{said}: {error}. {option.meaning}") from error
    if option.name in given and given[option.name] != parsed:
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]: {option.name} is given twice, as {given[option.name]!r} and as "
            f"{parsed!r} in {where}. Keep one."
        )
    given[option.name] = parsed


def _refuse_two_passwords(alias: str, settings_dict: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    options = settings_dict.get("OPTIONS") or {}
    ours = {"OPTIONS['resilience']['password']": given.get("password"), "password_file": given.get("password_file")}
    djangos = {"PASSWORD": settings_dict.get("PASSWORD"), "OPTIONS['password']": options.get("password")}
    # Without one of ours Django decides: PASSWORD goes before what libpq calls password.
    if any(ours.values()) or callable(djangos["PASSWORD"]):
        found = [name for name, value in {**ours, **djangos}.items() if value]
        if len(found) > 1:
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]: the password is given twice, by {found[0]} and by {found[1]}. Keep one."
            )


def age_and_pool(alias: str, age: Any) -> str:
    """Say that CONN_MAX_AGE and a pool contradict each other."""
    return (
        f"DATABASES[{alias!r}] sets CONN_MAX_AGE to {age!r}. Pooling doesn't support persistent connections. "
        "Remove it; OPTIONS['pool']['max_lifetime'] says how old a connection may get."
    )
