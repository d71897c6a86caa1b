"""What the value of an option may look like: each parser returns it or raises a ValueError that says."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import Any

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


def seconds(*, zero_allowed: bool = False, at_least: float = 0) -> Callable[[Any], float]:
    """Return a parser for durations in seconds."""

    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError("expected seconds, not true or false")
        number = float(value)
        if not math.isfinite(number) or number < 0 or (number == 0 and not zero_allowed):
            raise ValueError(f"expected seconds, {'0 or more' if zero_allowed else 'more than 0'}")
        if number < at_least:
            raise ValueError(f"expected {at_least} seconds or more")
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


def function(value: Any) -> Callable[..., Any]:
    """Accept something that can be called."""
    if not callable(value):
        raise ValueError("expected a function")
    return value  # type: ignore[no-any-return]


_DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def function_or_path(value: Any) -> Callable[[], Any] | str:
    """Accept something that can be called, or the dotted path to it."""
    if callable(value) or (isinstance(value, str) and _DOTTED_PATH.fullmatch(value)):
        return value  # type: ignore[no-any-return]
    raise ValueError("expected a function or the dotted path to one, such as 'shop.secrets.database_password'")


def path(value: Any) -> str:
    """Accept the name of a file or folder, and a `pathlib.Path`."""
    if not isinstance(value, (str, os.PathLike)) or not str(value).strip() or "\0" in str(value):
        raise ValueError("expected a path such as '/run/secrets/database'")
    return os.fspath(value)
