"""A PostgreSQL server of one test process, on a TCP port: stop it, kill it, freeze it, start it again.

`fork` of a migrated database gives every test its own in a tenth of a second.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg
from psycopg import sql

from config.postgres import PostgresServer
from tests.places import TEST_VAR_DIR
from tests.support.ports import free_port

SERVERS_DIR = TEST_VAR_DIR / "servers"

_numbers = itertools.count()


class ThrowawayPostgres:
    """`with ThrowawayPostgres() as server:` runs a new server; its data are gone afterwards."""

    def __init__(self, **options: str) -> None:
        self._folder = SERVERS_DIR / f"{os.getpid()}-{next(_numbers)}"
        self._options = {"fsync": "off", "full_page_writes": "off", "max_connections": "100"} | options
        self._server = PostgresServer(self._folder / "data", port=free_port(), options=self._options)

    def __enter__(self) -> ThrowawayPostgres:
        sweep()
        self._folder.mkdir(parents=True)
        # The lock says that this process lives: whoever finds it free may remove the server.
        self._alive = open(self._folder / "alive", "w")
        fcntl.flock(self._alive, fcntl.LOCK_EX)
        self._create()
        self.start()
        return self

    def _create(self) -> None:
        self._server.create()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.thaw()
        self._server.stop("immediate")
        self._alive.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def port(self) -> int:
        assert self._server.port
        return self._server.port

    @property
    def server(self) -> PostgresServer:
        """The server itself, for whoever wants more than its address."""
        return self._server

    @property
    def data(self) -> Path:
        return self._server.data

    def url(self, database: str = "postgres") -> str:
        return self._server.url(database)

    def is_running(self) -> bool:
        return self._server.is_running()

    def start(self) -> None:
        """Start it if it does not run; also after a kill."""
        if not self.is_running():
            self._server.start()

    def stop(self, mode: str = "fast") -> None:
        self._server.stop(mode)

    def kill(self) -> None:
        self._server.kill()

    def restart(self, mode: str = "fast") -> None:
        self.stop(mode)
        self.start()

    def crash(self) -> None:
        """One backend dies of SIGKILL: the server ends all sessions, recovers and goes on by itself."""
        with psycopg.connect(self.url(), autocommit=True) as victim, psycopg.connect(self.url()) as witness:
            os.kill(victim.info.backend_pid, signal.SIGKILL)
            # The server has noticed when it ends this one, too.
            with suppress(psycopg.OperationalError):
                witness.execute("SELECT pg_sleep(10)")

    def start_and_note(self) -> float:
        """Start it; `time.monotonic()` of when it first let somebody in, which is before `start` knows."""
        starting = threading.Thread(target=self.start)
        starting.start()
        try:
            return self.accepts_at()
        finally:
            starting.join()

    def accepts_at(self, *, timeout_seconds: float = 20) -> float:
        """Try to connect until it works; `time.monotonic()` of that."""
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline:
            with suppress(psycopg.OperationalError):
                psycopg.connect(self.url()).close()
                return time.monotonic()
            time.sleep(0.01)
        raise AssertionError(f"The server let nobody in within {timeout_seconds:g} s")

    def start_recovering(self) -> None:
        """Start it as a standby that serves nobody: who connects is told 57P03, until `end_recovery`."""
        (self.data / "standby.signal").touch()
        self._server.options = self._options | {"hot_standby": "off"}
        self._server.start()
        self._server.options = self._options

    def end_recovery(self) -> None:
        """What `pg_ctl promote` does."""
        (self.data / "promote").touch()
        process = self._server.process()
        assert process is not None
        process.send_signal(signal.SIGUSR1)

    @contextmanager
    def restarted_with(self, **options: str) -> Iterator[None]:
        """Other settings, until the block ends."""
        try:
            self.stop()
            self._server.options = self._options | options
            self.start()
            yield
        finally:
            self._server.options = self._options
            self.restart("immediate")

    def freeze(self) -> None:
        """Every server process stops where it is: connections are accepted, nothing is answered."""
        postmaster = self._server.process()
        if postmaster is None:
            return
        # First the one that forks: a session that began meanwhile would go on.
        postmaster.suspend()
        wait_until(lambda: postmaster.status() == psutil.STATUS_STOPPED, what="the postmaster's stop")
        for child in postmaster.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.suspend()

    def thaw(self) -> None:
        postmaster = self._server.process()
        if postmaster is None:
            return
        for process in [*postmaster.children(recursive=True), postmaster]:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def execute(self, statement: str, *, database: str = "postgres") -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.SQL(statement))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def create_role(self, role: str, password: str) -> None:
        """Make a superuser who must give a password; everybody else goes on without."""
        self.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD '{password}'")
        rules = self.data / "pg_hba.conf"
        rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        self.execute("SELECT pg_reload_conf()")

    def backends(self, database: str) -> int:
        """How many connections the server has to this database."""
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = '{database}'"
        return int(str(self.execute(query)[0][0]))

    def terminate_backends(self, database: str) -> None:
        self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'")

    def copy_database(self, source: str, name: str) -> None:
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{source}" STRATEGY file_copy')

    def drop_database(self, name: str) -> None:
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def sweep() -> None:
    """Remove the servers that killed test runs left behind."""
    for folder in SERVERS_DIR.glob("*"):
        with suppress(OSError), open(folder / "alive", "r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            PostgresServer(folder / "data").kill()
            shutil.rmtree(folder, ignore_errors=True)


def wait_until(condition: object, *, timeout_seconds: float = 10, what: str = "it") -> None:
    """Ask again and again until `condition()` is true; fail with `what` did not happen."""
    assert callable(condition)
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not happen within {timeout_seconds:g} s")
        time.sleep(0.02)
