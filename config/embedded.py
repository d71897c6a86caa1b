"""The PostgreSQL server of development: started when somebody needs it, shared, stopped by the last one out.

Every user holds a shared lock on `<data>.users` for as long as its process lives. The kernel drops the
locks of killed processes, so the count of users is never stale. Starting and stopping happen under
`<data>.lock`, so nobody joins a server that is about to stop.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

from config.postgres import SUPERUSER, PostgresError, PostgresServer

_held: dict[Path, int] = {}


def join(data: Path, *, database: str, options: Mapping[str, str] | None = None) -> PostgresServer:
    """Use the server in `data` until this process ends; create and start it if need be."""
    server = PostgresServer(data, options=options or {})
    if server.data in _held:
        return server
    server.data.parent.mkdir(parents=True, exist_ok=True)
    with _exclusive(server):
        users = os.open(_beside(server, "users"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        alone = _try_lock(users, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        _held[server.data] = users
        atexit.register(_leave, server, os.getpid())
        _exit_on_sigterm()
        if not server.exists():
            server.create()
        # A server that others use and that was stopped cleanly was stopped on purpose: leave it.
        if not server.is_running() and (alone or server.has_crashed()):
            server.start()
        if alone:
            _ensure_database(server, database)
    return server


def leave(data: Path) -> None:
    """Stop using the server now; stop it if nobody else uses it."""
    _leave(PostgresServer(data), os.getpid())


def start(data: Path, *, database: str) -> str:
    """`make db-start`: start the server that `make db-stop` stopped."""
    server = PostgresServer(data)
    if not server.exists():
        return "There is no embedded server yet: `make run` makes one."
    with _exclusive(server):
        if server.is_running():
            return "PostgreSQL is running already."
        if not _in_use(server):
            return "Nobody uses the embedded server now: `make run` starts it."
        server.start()
        _ensure_database(server, database)
    return "PostgreSQL accepts connections again."


def stop(data: Path, *, mode: str = "fast") -> str:
    """`make db-stop`: stop the server under its users, to see what they do."""
    server = PostgresServer(data)
    with _exclusive(server):
        if not server.is_running():
            return "PostgreSQL is not running."
        server.stop(mode)
    return "PostgreSQL is stopped. Start it again with `make db-start`."


def restart_if_crashed(data: Path) -> bool:
    """Start a server that went down without a clean stop; True if it was started."""
    server = PostgresServer(data)
    with _exclusive(server):
        if not server.has_crashed():
            return False
        server.start()
        return True


def _leave(server: PostgresServer, pid: int) -> None:
    # A forked child inherits the registration, not the right to stop its parent's server.
    if os.getpid() != pid or server.data not in _held:
        return
    users = _held.pop(server.data)
    with suppress(OSError), _exclusive(server):
        if _try_lock(users, fcntl.LOCK_EX) and server.is_running():
            try:
                server.stop("fast")
            except PostgresError as exc:
                print(exc, file=sys.stderr)
        os.close(users)


def _exit_on_sigterm() -> None:
    """The default action of SIGTERM skips exit handlers; whoever installed another one is left alone."""
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _in_use(server: PostgresServer) -> bool:
    with open(_beside(server, "users"), "a") as users:
        return not _try_lock(users.fileno(), fcntl.LOCK_EX)


def _ensure_database(server: PostgresServer, database: str) -> None:
    with psycopg.connect(host=server.host, user=SUPERUSER, dbname=SUPERUSER, autocommit=True) as connection:
        known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [database]).fetchone()
        if not known:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))


@contextmanager
def _exclusive(server: PostgresServer) -> Iterator[None]:
    server.data.parent.mkdir(parents=True, exist_ok=True)
    with open(_beside(server, "lock"), "a") as lock:
        if not _try_lock(lock.fileno(), fcntl.LOCK_EX):
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _beside(server: PostgresServer, suffix: str) -> Path:
    return server.data.with_name(f"{server.data.name}.{suffix}")


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
