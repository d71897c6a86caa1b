"""Settings that stand where nobody reads them, or as text where a value is meant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from dbresilience.aliases import Alias
from dbresilience.conf import OUR_KEYS, age_and_pool
from dbresilience.options import OPTIONS
from dbresilience.parsers import optional, parse_boolean, whole_number

from .rules import Mistake, alias_check


class _Typed(NamedTuple):
    """A setting that is no text: how a text is read, what it is without one, and what becomes of a text."""

    parse: Callable[[Any], Any]
    default: Any
    becomes: Callable[[str], str]


def _counts_as(value: str) -> str:
    return f"which counts as {'true' if value else 'false'}"


_BOOLEAN = _Typed(parse_boolean, False, _counts_as)
_ENTRIES = {
    "CONN_HEALTH_CHECKS": _BOOLEAN,
    "AUTOCOMMIT": _BOOLEAN._replace(default=True),
    "ATOMIC_REQUESTS": _BOOLEAN,
    "DISABLE_SERVER_SIDE_CURSORS": _BOOLEAN,
    "CONN_MAX_AGE": _Typed(optional(whole_number(0)), 0, lambda value: "where a number of seconds is meant"),
}
_OPTIONS = {
    "prepare_threshold": _Typed(optional(whole_number(0)), None, lambda value: "where a number or None is meant"),
    "server_side_binding": _BOOLEAN._replace(becomes=lambda value: "which counts as false: Django looks for True"),
}
_MISPLACED = ({option.name for option in OPTIONS} | OUR_KEYS | {"pool_options"}) - {"name", "password"}
"""Names that mean something to us or to an older pool; two of them are Django's own in capitals."""
_FOR_US_ALONE = OUR_KEYS - {"pool", "connect_timeout"}


@alias_check("dbresilience.E001")
def check_connection_age(alias: Alias) -> Iterator[Mistake]:
    """CONN_MAX_AGE and a pool contradict each other."""
    age = alias.given.get("CONN_MAX_AGE", 0)
    if age != 0 and not isinstance(age, str) and alias.configuration.pooled:
        yield Mistake(age_and_pool(alias.name, age), _no_age(alias))


def _no_age(alias: Alias) -> str:
    return f"{alias.entry('CONN_MAX_AGE', 0)}; take conn_max_age out of its URL"


@alias_check("dbresilience.E002", only=lambda alias: not alias.is_ours)
def check_other_engines(alias: Alias) -> Iterator[Mistake]:
    """OPTIONS of ours with another ENGINE, which would fail at each connection."""
    found = sorted(_FOR_US_ALONE & alias.options.keys())
    if found:
        yield Mistake(
            f"{alias.where} has OPTIONS[{found[0]!r}], which its ENGINE {alias.given['ENGINE']!r} does not know.",
            f"{alias.entry('ENGINE', 'dbresilience')}, or remove OPTIONS[{found[0]!r}]",
        )


@alias_check("dbresilience.E003")
def check_texts(alias: Alias) -> Iterator[Mistake]:
    """text where a number, True or False is meant, as from `DATABASE_URL`: `false` in small letters counts as true."""
    for name, typed in _ENTRIES.items():
        if isinstance(value := alias.given.get(name), str):
            meant = _meant(typed, value)
            if name == "CONN_MAX_AGE" and alias.configuration.pooled:
                mend = _no_age(alias)
            else:
                mend = f"{alias.entry(name, meant)}, or {name.lower()}={meant} in its URL"
            yield _text(alias, name, value, typed, mend)
    for name, typed in _OPTIONS.items():
        if isinstance(value := alias.options.get(name), str):
            mend = alias.entry("OPTIONS", {name: _meant(typed, value)})
            yield _text(alias, name, value, typed, mend)


def _meant(typed: _Typed, value: str) -> Any:
    try:
        return typed.parse(value) if value else typed.default
    except ValueError:
        return typed.default


def _text(alias: Alias, name: str, value: str, typed: _Typed, mend: str) -> Mistake:
    return Mistake(f"{alias.where}: {name} is the text {value!r}, {typed.becomes(value)}.", mend)


@alias_check("dbresilience.W002")
def check_misplaced_options(alias: Alias) -> Iterator[Mistake]:
    """an option beside OPTIONS instead of in it, where nobody reads it."""
    for name in alias.given:
        if name.lower() in _MISPLACED:
            right = "'pool'" if name.lower() == "pool_options" else repr(name.lower())
            yield Mistake(
                f"{alias.where}[{name!r}] is read by nobody: options stand in OPTIONS.",
                f"Move it into OPTIONS of {alias.where}, as {right}; docs/reference/settings.md has the places",
            )


CHECKS = (check_connection_age, check_other_engines, check_texts, check_misplaced_options)
