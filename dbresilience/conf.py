"""Every option of dbresilience, once: its name, type, default, unit and meaning.

`Configuration.from_settings()` turns one entry of ``settings.DATABASES`` into a frozen
`Configuration`; `docs/reference/settings.md` is generated from `OPTIONS`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from django.core.exceptions import ImproperlyConfigured

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})
NOTHING_WORDS = frozenset({"none", "null", ""})


def parse_boolean(value: Any) -> bool:
    """Accept a bool, 0 or 1, or such a word in any case; anything else is a ValueError."""
    if isinstance(value, bool) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    if isinstance(value, str) and value.lower() in TRUE_WORDS | FALSE_WORDS:
        return value.lower() in TRUE_WORDS
    raise ValueError("expected true or false")


def whole_number(minimum: int) -> Callable[[Any], int]:
    """Return a parser for whole numbers from `minimum` up."""

    def parse(value: Any) -> int:
        if isinstance(value, bool):
            raise ValueError("expected a whole number, not true or false")
        number = int(value)
        if number != float(value) or number < minimum:
            raise ValueError(f"expected a whole number of {minimum} or more")
        return number

    return parse


def seconds(*, zero_allowed: bool = False) -> Callable[[Any], float]:
    """Return a parser for durations in seconds."""

    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError("expected seconds, not true or false")
        number = float(value)
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero_allowed):
            raise ValueError(f"expected seconds, {'0 or more' if zero_allowed else 'more than 0'}")
        return number

    return parse


def optional(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Let `parse` also accept None, or the word for it in a URL."""

    def parse_or_none(value: Any) -> Any:
        if value is None or (isinstance(value, str) and value.lower() in NOTHING_WORDS):
            return None
        return parse(value)

    return parse_or_none


def one_of(*words: str) -> Callable[[Any], str]:
    """Return a parser that accepts exactly these words."""

    def parse(value: Any) -> str:
        if value not in words:
            raise ValueError("expected " + " or ".join(repr(word) for word in words))
        return str(value)

    return parse


class Option(NamedTuple):
    """One option: where it stands (``pool`` or ``resilience``), its name, and what it means."""

    group: str
    name: str
    parse: Callable[[Any], Any]
    default: Any
    unit: str
    meaning: str
    in_url: tuple[str, ...] = ()


# fmt: off
OPTIONS: tuple[Option, ...] = (
    Option("pool", "min_size", whole_number(0), 0, "connections",
           "Connections kept open while nothing is asked. 0 keeps none for longer than max_idle.",
           ("pool_min_size",)),
    Option("pool", "max_size", whole_number(1), 10, "connections",
           "Most connections this process opens for this alias.",
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
    Option("pool", "name", optional(str), None, "",
           "Name of the pool's threads, after `dbresilience-`; the alias if absent."),
    Option("resilience", "lease", one_of("transaction", "request"), "transaction", "",
           "When a connection goes back: at the end of the query or transaction, or at the end of "
           "the request as with Django's own pool.", ("lease",)),
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
    Option("resilience", "connect_timeout_seconds", seconds(), 10.0, "seconds",
           "libpq's connect_timeout, for each address of the server; whole seconds, 2 at least.",
           ("connect_timeout",)),
    Option("resilience", "log_addresses", parse_boolean, False, "",
           "Whether connection errors in logs name the server's host and address.",
           ("log_addresses",)),
    Option("resilience", "retry_after_seconds", whole_number(1), 2, "seconds",
           "Retry-After of a 503, unless the error knows better.", ("retry_after_seconds",)),
)
# fmt: on

_BY_URL_NAME = {url_name: option for option in OPTIONS for url_name in option.in_url}
OUR_KEYS = frozenset({"pool", "resilience", *_BY_URL_NAME})


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
    name: str | None
    lease: str
    slow_query_seconds: float | None
    slow_query_parameters: bool
    statement_timeout_seconds: float | None
    connect_timeout_seconds: float
    log_addresses: bool
    retry_after_seconds: int

    @classmethod
    def from_settings(cls, alias: str, settings_dict: Mapping[str, Any], *, debug: bool) -> Configuration:
        """Check the options of one alias.

        Raises:
            ImproperlyConfigured: an option is unknown or its value impossible; the text names it.
        """
        options = settings_dict.get("OPTIONS") or {}
        pooled, given = _pool_options(alias, options.get("pool"))
        given |= _named_options(alias, "resilience", options.get("resilience") or {})
        for key, value in options.items():
            if key in _BY_URL_NAME:
                option = _BY_URL_NAME[key]
                _set_once(alias, given, option, f"OPTIONS[{key!r}]", value)
        values = {option.name: option.default for option in OPTIONS} | given
        # Django's own pool takes max_size=None to mean "as min_size"; a larger minimum alone
        # would otherwise be refused by the pool in words that name no setting.
        if "max_size" not in given:
            values["max_size"] = max(values["max_size"], values["min_size"])
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


def _named_options(alias: str, group: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: OPTIONS[{group!r}] is {values!r}. Give a dict of options.")
    known = {option.name: option for option in OPTIONS if option.group == group}
    given: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise ImproperlyConfigured(
                f"DATABASES[{alias!r}]: OPTIONS[{group!r}] has no option {name!r}. Known: {', '.join(sorted(known))}."
            )
        if name == "max_size" and value is None:
            continue
        _set_once(alias, given, known[name], f"OPTIONS[{group!r}][{name!r}]", value)
    return given


def _set_once(alias: str, given: dict[str, Any], option: Option, where: str, value: Any) -> None:
    try:
        parsed = option.parse(value)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"DATABASES[{alias!r}]: {where} is {value!r}: {error}. {option.meaning}") from error
    if option.name in given and given[option.name] != parsed:
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]: {option.name} is given twice, as {given[option.name]!r} and as "
            f"{parsed!r} in {where}. Keep one."
        )
    given[option.name] = parsed
