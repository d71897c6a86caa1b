"""`pinned()`: one connection for a block that needs session state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DEFAULT_DB_ALIAS, connections


@contextmanager
def pinned(using: str = DEFAULT_DB_ALIAS) -> Iterator[None]:
    """Keep one connection for the block: for advisory locks, `SET`, temporary tables, `LISTEN`.

    What its statements leave on the session is cleaned when the block ends, or, if a cursor from before it is still
    open, when that is closed or the request ends; what is recognised is listed in `session_state.py`. On another
    database backend this does nothing, since there a connection is kept for the request anyway.

    Args:
        using: the database alias.

    Raises:
        DatabaseUnavailable: no connection could be had.
    """
    pin = getattr(connections[using], "pinned", None)
    if pin is None:
        yield
    else:
        with pin():
            yield
