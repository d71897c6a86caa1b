"""Statements without the values in them, for files and pages that more people see than the log."""

from __future__ import annotations

import re

MASK = "?"
_LONGEST = 10_000

# Where one ends is not always known, since whitespace was folded: then everything up to the end is left out.
_PARTS_OF_SQL = re.compile(
    r"""
      (?P<name> "(?:[^"]|"")*" | \$\d+ )
    | (?<!\w)[eE]'(?:[^'\\]|\\.|'')*(?:'|\\?$)
    | '(?:[^']|'')*(?:'|$)
    | "(?:[^"]|"")*$
    | (?P<quote>\$(?:[^\W\d]\w*)?\$).*?(?:(?P=quote)|$)
    | /\*.*?(?:\*/|$)
    | --.*
    | (?<![\w$])\.?\d[\w.]*
    """,
    re.VERBOSE | re.DOTALL,
)


def without_values(sql: str) -> str:
    """Return a statement with `MASK` for each string, number and comment; names and placeholders stay."""
    return _PARTS_OF_SQL.sub(lambda part: part["name"] or MASK, sql[:_LONGEST])
