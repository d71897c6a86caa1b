"""What a model said, made fit for PostgreSQL, which stores neither NUL characters nor halves of surrogate pairs."""

from __future__ import annotations

import math
from typing import Any

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable_text(text: str) -> str:
    if "\x00" in text:
        text = text.replace("\x00", REPLACEMENT)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = "".join(REPLACEMENT if "\ud800" <= character <= "\udfff" else character for character in text)
    return text


def in_order(value: Any) -> Any:
    """JSON with the keys of each object in the order of the alphabet."""
    match value:
        case dict():
            return {key: in_order(value[key]) for key in sorted(value)}
        case list() | tuple():
            return [in_order(item) for item in value]
    return value


def storable_json(value: Any) -> Any:
    """The same for JSON, which in PostgreSQL also has no infinities."""
    match value:
        case str():
            return storable_text(value)
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {storable_text(str(key)): storable_json(item) for key, item in value.items()}
        case list() | tuple():
            return [storable_json(item) for item in value]
    return value
