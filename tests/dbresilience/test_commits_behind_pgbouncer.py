"""commits.py behind PgBouncer in transaction mode."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dbresilience import retry
from tests.support.ports import free_port
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy
from tests.support.system_tools import missing_tool

from .conftest import MakeWrapper, insert, run


@pytest.fixture
def bouncer_port(postgres: ThrowawayPostgres) -> Iterator[int]:
    """A PgBouncer before the server, in transaction mode."""
    pgbouncer = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if pgbouncer is None:
        missing_tool("PgBouncer is not installed")
    port = free_port()
    # It refuses to run as root; the server's user is at hand.
    user = postgres.data.owner() if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder) / "bouncer.ini"
        configuration.write_text(
            f"[databases]\n* = host=127.0.0.1 port={postgres.port} user=postgres\n[pgbouncer]\n"
            "listen_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
        )
        for path, mode in ((Path(folder), 0o755), (configuration, 0o644)):
            path.chmod(mode)
        process = subprocess.Popen(
            [pgbouncer, "-q", configuration], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
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


@pytest.mark.parametrize(("after", "runs"), [(SEEN, 2), (SENT, 1), (ANSWERED, 1)])
def test_behind_pgbouncer_too(
    make_wrapper: MakeWrapper, database_url: str, bouncer_port: int, looked_up: list[str], after: str, runs: int
) -> None:
    """Each transaction may run on another session, and the one that looks is another still."""
    ran: list[int] = []
    with Proxy(bouncer_port) as proxy:
        database = database_url.rpartition("/")[2]
        wrapper = make_wrapper(url=f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}")
        run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")

        @retry(using=wrapper.alias)
        def unit() -> None:
            ran.append(1)
            insert(wrapper, 1)

        proxy.cut_when(is_commit, after=after)
        unit()
        assert len(ran) == runs
        assert len(looked_up) == 1
        assert run(wrapper, "SELECT n FROM kept") == [(1,)]
        wrapper.close()
        wrapper.resources.close()
