"""A throwaway PostgreSQL of the system's own, which has what the embedded one lacks: ICU collations."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port

WHERE = ("/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql*/bin")


def find_binaries() -> Path:
    """Return the folder of `initdb`, of the newest version installed.

    Raises:
        SystemExit: there is none.
    """
    found = [path for pattern in WHERE for path in Path("/").glob(pattern.lstrip("/")) if (path / "initdb").exists()]
    if on_path := shutil.which("initdb"):
        found.append(Path(on_path).parent)
    if not found:
        raise SystemExit("No initdb was found. Install the system's PostgreSQL server (Debian: postgresql).")
    return max(found, key=lambda path: [int(number) for number in re.findall(r"\d+", path.parent.name)])


@contextmanager
def system_postgres() -> Iterator[int]:
    """Run a server for the block; gives its port on 127.0.0.1, user `postgres`, no password."""
    binaries = find_binaries()
    # PostgreSQL refuses to run as root.
    user = "postgres" if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="django-suite-") as folder:
        if user is not None:
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
        data, port = Path(folder) / "data", free_port()

        def run(program: str, *arguments: str) -> None:
            # Not captured through a pipe: the server would inherit it and keep it open.
            with open(Path(folder) / "said", "w+") as said:
                done = subprocess.run(
                    [binaries / program, *arguments], user=user, cwd=folder, stdout=said, stderr=said, check=False
                )
                if done.returncode:
                    said.seek(0)
                    raise SystemExit(f"{program} failed:\n{said.read()}")

        run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8")
        options = (
            f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off -c synchronous_commit=off "
            "-c full_page_writes=off -c max_connections=200"
        )
        run("pg_ctl", "-D", str(data), "-w", "-l", str(Path(folder) / "log"), "-o", options, "start")
        try:
            yield port
        finally:
            run("pg_ctl", "-D", str(data), "-w", "-m", "immediate", "stop")
