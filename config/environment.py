"""The environment as the settings read it: empty is unset, and what cannot be meant is refused in one line."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import environ

TRUE_WORDS = frozenset({"1", "true", "t", "yes", "y", "on", "ok"})
FALSE_WORDS = frozenset({"0", "false", "f", "no", "n", "off"})
# REST framework looks at the first letter of the period only: for it, 1/month is one a minute.
RATE = re.compile(r"[1-9]\d*/(s|sec|second|m|min|minute|h|hour|d|day)")


def refuse(reason: str) -> NoReturn:
    """Stop the start with one line: a traceback through Django would hide what to do."""
    print(reason, file=sys.stderr, flush=True)
    # gunicorn's workers exit with 3 when they cannot boot, so that the master stops instead of trying for ever.
    # For a command of `manage.py dbresilience` 3 says that the database is away, and 2 that a setting is wrong.
    raise SystemExit(3 if "gunicorn" in sys.modules else 2)


class Env(environ.Env):  # type: ignore[misc]  # it has no types
    """django-environ, strict: values are taken as they stand, and a wrong one ends the process.

    Only the methods added here show the value in their refusal; `str` may hold a secret and never does.
    """

    def get_value(self, var: str, cast: Any = None, default: Any = None, parse_default: bool = False) -> Any:
        """The value of `var`, or `default` if it is unset or empty; a dollar sign at its beginning is only that."""
        text = self.ENVIRON.get(var, "")
        return self.parse_value(text, cast) if text.strip() else default

    def flag(self, var: str, *, default: bool) -> bool:
        """On or off."""
        text = self.str(var, default="").strip().lower()
        if not text:
            return default
        if text not in TRUE_WORDS | FALSE_WORDS:
            refuse(f"{var} is {text!r}: it must be 1 or 0 (true, false, yes, no, on and off do too).")
        return text in TRUE_WORDS

    def word(self, var: str, words: Sequence[str], *, default: str) -> str:
        """One of `words`."""
        text: str = self.str(var, default=default)
        if text not in words:
            refuse(f"{var} is {text!r}: it must be {' or '.join(map(repr, words))}.")
        return text

    def whole(self, var: str, *, default: Any, minimum: int, maximum: int | None = None, hint: str = "") -> Any:
        """A whole number from `minimum` to `maximum`; `hint` is a sentence that ends the refusal."""
        text = self.str(var, default="").strip()
        if not text:
            return default
        digits = text.removeprefix("-")
        number = int(text) if digits.isascii() and digits.isdecimal() else None
        if number is None or number < minimum or (maximum is not None and number > maximum):
            bounds = f"of {minimum} or more" if maximum is None else f"from {minimum} to {maximum}"
            refuse(f"{var} is {text!r}: it must be a whole number {bounds}.{hint and ' '}{hint}")
        return number

    def seconds(self, var: str, *, default: float) -> float:
        """A duration, 0 or more; it may have a fraction."""
        text = self.str(var, default="").strip()
        if not text:
            return default
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            refuse(f"{var} is {text!r}: it must be seconds, 0 or more, such as 1.5.")
        return number

    def rate(self, var: str) -> str | None:
        """So many in a period, such as 300/min, as REST framework writes it; None if unset."""
        text: str | None = self.str(var, default=None)
        if text is not None and not RATE.fullmatch(text):
            refuse(f"{var} is {text!r}: it must look like 300/min; the period is s, min, hour or day.")
        return text

    def hosts(self, var: str, *, default: Sequence[str]) -> list[str]:
        """Names of this site, separated by commas, without scheme, port and path."""
        hosts = self._between_commas(var)
        for host in hosts:
            if not re.fullmatch(r"\*|\.?[\w.-]+|\[[\da-fA-F:.]+\]", host):
                refuse(f"{var} has {host!r}: give names alone, such as chat.example.org, separated by commas.")
        return hosts or list(default)

    def origins(self, var: str) -> list[str]:
        """Origins of this site, separated by commas: scheme and name, and a port where it is not the usual one."""
        origins = self._between_commas(var)
        for origin in origins:
            if not re.fullmatch(r"https?://[^\s/]+", origin):
                refuse(f"{var} has {origin!r}: give origins such as https://chat.example.org, separated by commas.")
        return origins

    def web_address(self, var: str) -> str | None:
        """An http or https URL; None if unset."""
        text: str | None = self.str(var, default=None)
        if text is not None and not re.fullmatch(r"https?://[^\s/]+(/\S*)?", text):
            refuse(f"{var} is {text!r}: it must be a URL such as https://models.example.org/v1.")
        return text

    def _between_commas(self, var: str) -> list[str]:
        return [each for part in self.str(var, default="").split(",") if (each := part.strip())]
