"""A PgBouncer in transaction mode before a server, or before a proxy that leads to one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_port
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.system_tools import missing_tool


@contextmanager
def pgbouncer(postgres: ThrowawayPostgres, server_port: int) -> Iterator[int]:
    """Run one that connects to `server_port`; the block gets its own port."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        missing_tool("PgBouncer is not installed")
    port = free_port()
    # It refuses to run as root; the server's user is at hand.
    user = postgres.data.owner() if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "bouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server_port} user=postgres\n[pgbouncer]\n"
            "listen_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
        )
        for path, mode in ((Path(folder), 0o755), (configuration, 0o644)):
            path.chmod(mode)
        process = subprocess.Popen(
            [program, "-q", configuration], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: _accepts(port), what="PgBouncer")
            yield port
        finally:
            process.terminate()
            process.wait(10)


def _accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True
