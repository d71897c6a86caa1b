"""Hiding where the server is: host names, socket paths and IP addresses in error texts."""

from __future__ import annotations

import re
from ipaddress import ip_address

_QUOTED_HOST = re.compile(r"""\b(host name|server at|socket|host:?) ("[^"]*"|'[^']*')""")
_MAYBE_ADDRESS = re.compile(r"[0-9a-fA-F.:%]{2,}")


def without_addresses(text: str) -> str:
    """Return an error text of libpq or psycopg without host names, socket paths and IP addresses."""
    return _MAYBE_ADDRESS.sub(_hide_if_address, _QUOTED_HOST.sub(r'\1 "<host>"', text))


def _hide_if_address(found: re.Match[str]) -> str:
    text = found.group()
    kept = len(text.rstrip(".:"))
    try:
        ip_address(text[:kept])
    except ValueError:
        return text
    return "<address>" + text[kept:]
