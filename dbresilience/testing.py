"""For the tests of users, with whatever runner: statements that fail, and who holds a connection.

`pytest_plugin` makes fixtures and a marker of it. Under tests the defaults of `OPTIONS` are those of the test profile
(`conf.UNDER_TESTS`), without a setting.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg

if TYPE_CHECKING:
    from dbresilience.lease import Lease

SESSION_ENDED = ("57P01", "57P02", "57P03", "57P05")
CONNECTION_LOST = "08"

_END_SESSION = "SELECT pg_terminate_backend(pg_backend_pid())"
_RAISE = "DO $$ BEGIN RAISE SQLSTATE '{}' USING MESSAGE = 'a failure for a test'; END $$"


def connections_out() -> list[str]:
    """Tell who holds a connection of any alias now, one line each; whole-test transactions of Django's do not count."""
    from dbresilience.resources import all_resources

    return [
        f"{resources.alias}: {lease.describe()}"
        for resources in all_resources()
        if resources.pool is not None
        for lease in list(resources.pool.leases)
        if not _belongs_to_test_case(lease)
    ]


def _belongs_to_test_case(lease: Lease) -> bool:
    blocks = getattr(lease.holder, "atomic_blocks", [])
    return any(getattr(block, "_from_testcase", False) for block in blocks)


def assert_no_connection_out() -> None:
    """Fail if anybody holds a connection.

    Raises:
        AssertionError: somebody does; it says who, since when and with what statement.
    """
    assert_none_out(connections_out())


def assert_none_out(held: list[str]) -> None:
    """Fail if `held`, of `connections_out`, names anybody."""
    __tracebackhide__ = True
    assert not held, f"{len(held)} not given back:\n" + "\n".join(held)


@contextmanager
def failing_statement(sqlstate: str, *, alias: str = "default", matching: str = "") -> Iterator[Callable[[], bool]]:
    """Let the next statement fail as the server would let it fail, in whatever thread of this process it is executed.

    The error is a real one: the server raises it, so what a transaction is afterwards, what is repeated and what is
    refused is what happens in production. 57P01 and its like end the session; class 08 cuts the connection.

    Args:
        sqlstate: five characters (PostgreSQL manual, appendix A), such as ``40001``, ``55P03`` or ``57P01``.
        alias: whose statement.
        matching: only a statement that contains this.

    Returns:
        A function that tells whether it has happened.

    Raises:
        ValueError: that is no SQLSTATE of an error.
        AssertionError: at the end of the block, if no such statement was executed.
    """
    if len(sqlstate) != 5 or not (sqlstate.isascii() and sqlstate.isalnum()) or sqlstate[:2] in ("00", "01", "02"):
        raise ValueError(f"{sqlstate!r} is no SQLSTATE of an error: give five characters such as '40001'.")
    from dbresilience.batches import Batch

    executes, adds = psycopg.Cursor.execute, Batch.add
    fails = _END_SESSION if sqlstate in SESSION_ENDED else _RAISE.format(sqlstate.upper())
    happened = threading.Event()
    lock = threading.Lock()

    def is_meant(cursor: Any, query: Any) -> bool:
        with lock:
            if happened.is_set() or not _is_of(cursor, alias) or matching not in str(query):
                return False
            happened.set()
        if sqlstate.startswith(CONNECTION_LOST):
            _cut(cursor.connection)
            return False  # it goes as it is, and meets that
        return True

    def execute(cursor: Any, query: Any, params: Any = None, **kwargs: Any) -> Any:
        return executes(cursor, fails) if is_meant(cursor, query) else executes(cursor, query, params, **kwargs)

    def add(batch: Any, statement: Any, **kwargs: Any) -> None:
        if statement.text != fails.encode() and is_meant(statement.cursor, statement.query):
            statement = statement._replace(text=fails.encode())
        adds(batch, statement, **kwargs)

    # Below all of ours, which sees the statement that was meant, and its error.
    psycopg.Cursor.execute, Batch.add = execute, add  # type: ignore[assignment,method-assign]
    try:
        yield happened.is_set
    finally:
        psycopg.Cursor.execute, Batch.add = executes, adds  # type: ignore[method-assign]
    assert happened.is_set(), f"No statement on {alias!r} containing {matching!r} was executed, so none has failed."


def _is_of(cursor: Any, alias: str) -> bool:
    """Whether it is the program's own statement; what a new connection is greeted with is not."""
    lease = getattr(cursor, "lease", None)
    return lease is not None and lease.pool.alias == alias and lease.connection.announced


def _cut(connection: Any) -> None:
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as wire:
        wire.shutdown(socket.SHUT_RDWR)
