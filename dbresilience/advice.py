"""How to set an option: the entry for the settings, and what to add to a DATABASE_URL."""

from __future__ import annotations

import json
from typing import Any

from .options import OPTIONS

_IN_URL = {(option.group, option.name): option.in_url[0] for option in OPTIONS if option.in_url}


def set_option(alias: str, group: str, name: str, value: Any) -> str:
    """Return the line for an option of ours, in `group` ``pool`` or ``resilience``."""
    line = _entry(alias, "OPTIONS", {group: {name: value}})
    in_url = _IN_URL.get((group, name))
    return line if in_url is None else f"{line}, or {in_url}={_text(value)} in its URL"


def set_connection_option(alias: str, name: str, value: Any) -> str:
    """Return the line for an option of libpq or psycopg."""
    line = _entry(alias, "OPTIONS", {name: value})
    return line if value is None else f"{line}, or {name}={_text(value)} in its URL"


def set_entry(alias: str, name: str, value: Any) -> str:
    """Return the line for an entry of Django's own."""
    return _entry(alias, name, value)


def _entry(alias: str, name: str, value: Any) -> str:
    return f'"{name}": {_python(value)} in DATABASES["{alias}"]'


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _python(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(name)}: {_python(each)}" for name, each in value.items()) + "}"
    return json.dumps(value) if isinstance(value, str) else repr(value)
