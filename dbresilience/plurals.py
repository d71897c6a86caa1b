"""Numbers with their nouns."""

from __future__ import annotations


def number_of(number: int, one: str, many: str = "") -> str:
    """Return ``1 request``, ``2 requests``; `many` where an s is not enough."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
