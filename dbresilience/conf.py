"""How one entry of ``settings.DATABASES`` is read: `Configuration.from_settings()` makes it frozen and checked.

What may stand there is in `options`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any

import psycopg
from django.core.exceptions import ImproperlyConfigured

from .options import DEFAULT_MAX_SIZE, IDLE_SECONDS_AT_ZERO, OPTIONS, UNDER_TESTS, Option
from .parsers import parse_boolean

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
