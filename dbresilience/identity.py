"""Which database and which configuration an entry of ``settings.DATABASES`` means."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any


def database_of(settings_dict: Mapping[str, Any]) -> tuple[str, ...]:
    """Return host, port and name: which database this is, whatever its alias."""
    return tuple(str(settings_dict[name] or "") for name in ("HOST", "PORT", "NAME"))


def hashable(value: Any) -> Hashable:
    """Turn settings into a key; what cannot be hashed counts by identity."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(name), hashable(item)) for name, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(hashable(item) for item in value)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return value  # type: ignore[no-any-return]
