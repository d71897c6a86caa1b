"""Settings that stand where nobody reads them, or as text where a value is meant."""

from __future__ import annotations

from collections.abc import Iterator

from dbresilience.aliases import Alias
from dbresilience.conf import OUR_KEYS, age_and_pool
from dbresilience.options import OPTIONS

from .rules import Mistake, alias_check

_TYPED = ("CONN_HEALTH_CHECKS", "AUTOCOMMIT", "ATOMIC_REQUESTS", "DISABLE_SERVER_SIDE_CURSORS", "CONN_MAX_AGE")
_TYPED_OPTIONS = ("prepare_threshold", "server_side_binding")
_MEANT = {"true": True, "false": False, "none": None}
_MISPLACED = ({option.name for option in OPTIONS} | OUR_KEYS | {"pool_options"}) - {"name", "password"}
"""Names that mean something to us or to an older pool; two of them are Django's own in capitals."""
_FOR_US_ALONE = OUR_KEYS - {"pool", "connect_timeout"}


@alias_check("dbresilience.E001")
def check_connection_age(alias: Alias) -> Iterator[Mistake]:
    """CONN_MAX_AGE and a pool contradict each other."""
    age = alias.given.get("CONN_MAX_AGE", 0)
    if age != 0 and alias.configuration.pooled:
        yield Mistake(
            age_and_pool(alias.name, age), f"{alias.entry('CONN_MAX_AGE', 0)}; take conn_max_age out of its URL"
        )


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
    """a value that came as text, as from `DATABASE_URL`: `false` in small letters counts as true."""
    for name in (*_TYPED, *_TYPED_OPTIONS):
        value = (alias.given if name in _TYPED else alias.options).get(name)
        if isinstance(value, str):
            meant = _MEANT.get(value.lower())
            if name in _TYPED:
                mend = f"{alias.entry(name, meant)}, or in its URL with a capital letter"
            else:
                mend = f"{alias.entry('OPTIONS', {name: meant})}, which a URL cannot say"
            yield Mistake(f"{alias.where}: {name} is the text {value!r}, and any text counts as true.", mend)


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
