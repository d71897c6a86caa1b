"""Opening a session so that a refusal carries its SQLSTATE.

libpq keeps the SQLSTATE of a refused connection to itself unless its error verbosity is raised
between the first step of connecting and the next (PostgreSQL manual, libpq `PQsetErrorVerbosity`),
which psycopg does not offer. Without the code, "starting up", "too many clients" and "wrong
password" could be told apart by texts only, and those are translated.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import os
import re
import threading
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
from psycopg import pq

_DEFAULT, _VERBOSE = 1, 2  # PGVerbosity
_CODE = re.compile(r"(?<=:  )([0-9A-Z]{5}): ")
_LOCATION = re.compile(r"\n[^\n:]*:  \w+, \w+\.c:\d+")
_NOBODY_LISTENS = tuple(os.strerror(code) for code in (errno.ECONNREFUSED, errno.ENOENT))

# The second, since the first step is made before the host can have answered, and libpq takes it for good news.
_NOT_YET_TAKEN = (pq.ConnStatus.STARTED, pq.ConnStatus.MADE)
_WAITS: dict[int, Any] = {
    pq.PollingStatus.READING: psycopg.waiting.Wait.R,
    pq.PollingStatus.WRITING: psycopg.waiting.Wait.W,
}


def dial(
    conninfo: str, *, timeout_seconds: float | None = None, answer_seconds: float | None = None
) -> Generator[tuple[int, Any], Any, Any]:
    """Connect to one address, as a generator for psycopg's waiting; returns its `PGconn`.

    Args:
        conninfo: as libpq takes it, with one host.
        timeout_seconds: longest time for all of it, or None where the caller limits it.
        answer_seconds: longest wait for the host to take the connection at all, or None. A packet that was
            swallowed is sent again only after seconds; dialling anew is quicker.

    Raises:
        psycopg.OperationalError: refused; the text holds the SQLSTATE for `read_refusal`.
        psycopg.errors.ConnectionTimeout: one of the two times is over.
    """
    started = monotonic()
    end_attempt()
    pgconn: Any = pq.PGconn.connect_start(conninfo.encode())
    _attempts.last = pgconn
    set_verbosity = _set_verbosity()
    if set_verbosity is not None and pgconn.pgconn_ptr is not None:
        set_verbosity(pgconn.pgconn_ptr, _VERBOSE)
    while pgconn.status != pq.ConnStatus.BAD:
        step = pgconn.connect_poll()
        if step == pq.PollingStatus.OK:
            if set_verbosity is not None and pgconn.pgconn_ptr is not None:
                set_verbosity(pgconn.pgconn_ptr, _DEFAULT)
            pgconn.nonblocking = 1
            _attempts.last = None
            return pgconn
        if step not in _WAITS:
            break
        while not (yield pgconn.socket, _WAITS[step]):
            most_seconds = timeout_seconds
            if answer_seconds is not None and pgconn.status in _NOT_YET_TAKEN:
                most_seconds = answer_seconds
            if most_seconds and monotonic() - started >= most_seconds:
                raise psycopg.errors.ConnectionTimeout("connection timeout expired", pgconn=_finish(pgconn))
    text = pgconn.get_error_message()
    raise psycopg.OperationalError(f"connection failed: {text}", pgconn=_finish(pgconn))


_attempts = threading.local()


def end_attempt() -> None:
    """End what this thread's last attempt has left half open, because psycopg had no more patience with it.

    Its socket would stay open until the garbage collector comes by, and a frozen server would make a session of it.
    """
    pgconn, _attempts.last = getattr(_attempts, "last", None), None
    if pgconn is not None:
        pgconn.finish()


def _finish(pgconn: Any) -> Any:
    """End an attempt; returns what its error carries, as psycopg's own do, but without the password."""
    finished: Any = psycopg.errors.finish_pgconn(pgconn)
    finished.password, finished.info = b"", []
    return finished


def read_refusal(error: psycopg.Error) -> None:
    """Move the SQLSTATE from the text of a refused connection to `sqlstate`; of several hosts, the last one's."""
    text = str(error)
    codes = _CODE.findall(text)
    if codes and error.sqlstate is None:
        error.sqlstate = codes[-1]
        error.args = (_LOCATION.sub("", _CODE.sub("", text)),)


def nobody_listened(error: BaseException) -> bool:
    """Whether nothing at all was at the address, or at any of several: the cheapest refusal for everybody.

    Recognised by the text of this machine's own C library, in the language that it uses itself.
    """
    if getattr(error, "sqlstate", None) is not None:
        return False
    text = str(error)
    each = [line for line in text.splitlines() if line.startswith("- host:")] or [text]
    return all(any(words in line for words in _NOBODY_LISTENS) for line in each)


def is_unexplained(error: psycopg.Error) -> bool:
    """Whether somebody answered, yet neither with a SQLSTATE nor with silence."""
    return (
        error.sqlstate is None
        and not isinstance(error, psycopg.errors.ConnectionTimeout)
        and not nobody_listened(error)
    )


@cache
def _set_verbosity() -> Callable[[int, int], int] | None:
    """Return libpq's `PQsetErrorVerbosity`, of the very libpq that psycopg uses; None unless that is certain.

    A connection is a pointer into that library's memory: any other copy of libpq would write where it must not.
    """
    names = _libpq_names()
    if len(names) != 1:
        return None
    try:
        libpq = ctypes.CDLL(names[0])
        function = libpq.PQsetErrorVerbosity
        if libpq.PQlibVersion() != pq.version():
            return None
    except (OSError, AttributeError):
        return None
    function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_int), ctypes.c_int
    return lambda pointer, verbosity: int(function(pointer, verbosity))


def _libpq_names() -> list[str]:
    """Return the libraries that psycopg's libpq may be: those in memory where that can be read, else by their place."""
    in_wheel = pq.__impl__ == "binary"
    maps = Path("/proc/self/maps")
    if maps.exists():
        paths = {line.split(maxsplit=5)[-1].strip() for line in maps.read_text().splitlines() if "/libpq" in line}
        return [path for path in paths if ("psycopg_binary" in path) is in_wheel]
    if in_wheel:
        package = Path(psycopg.__file__).parent.parent / "psycopg_binary"
        return [str(path) for path in package.glob(".dylibs/libpq*")]
    found = ctypes.util.find_library("pq")
    return [found] if found else []
