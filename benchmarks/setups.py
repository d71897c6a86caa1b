"""What is compared: every way of connecting that a Django team would consider, on one server."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from config.postgres import SYSTEM_USER, PostgresServer
from tests.support.ports import free_port

Settings = dict[str, Any]

DJANGO = "django.db.backends.postgresql"
BASELINE = "Django, persistent connections"
OURS = "dbresilience"
DATABASE = "bench"


def setups(
    server: PostgresServer,
    pool_size: int,
    pgbouncer: Settings | None,
    *,
    min_size: int = 0,
    timeout_seconds: float = 60,
) -> dict[str, Settings]:
    """Return entries of settings.DATABASES by the name of what they show; peers that are not installed are left out."""
    at = {"NAME": DATABASE, "USER": "postgres", "HOST": server.host, "PORT": str(server.port or 5432)}
    sizes = {"min_size": min_size, "max_size": pool_size, "timeout": timeout_seconds}
    found: dict[str, Settings] = {
        "Django, no pool": {"ENGINE": DJANGO, "CONN_MAX_AGE": 0},
        BASELINE: {"ENGINE": DJANGO, "CONN_MAX_AGE": None},
        "Django, persistent, health checks": {"ENGINE": DJANGO, "CONN_MAX_AGE": None, "CONN_HEALTH_CHECKS": True},
        "Django's pool": {"ENGINE": DJANGO, "OPTIONS": {"pool": sizes}},
        "Django's pool, health checks": {"ENGINE": DJANGO, "CONN_HEALTH_CHECKS": True, "OPTIONS": {"pool": sizes}},
    }
    if importlib.util.find_spec("django_pg_real_pool"):
        engine = "django_pg_real_pool.native"
        found["django-pg-real-pool"] = {"ENGINE": engine, "OPTIONS": {"pool": sizes}}
        found["django-pg-real-pool, health checks"] = {
            "ENGINE": engine, "CONN_HEALTH_CHECKS": True, "OPTIONS": {"pool": sizes},
        }  # fmt: skip
    if importlib.util.find_spec("dj_db_conn_pool"):
        options = {"POOL_SIZE": pool_size, "MAX_OVERFLOW": 0, "TIMEOUT": timeout_seconds}
        found["django-db-connection-pool"] = {"ENGINE": "dj_db_conn_pool.backends.postgresql", "POOL_OPTIONS": options}
    if pgbouncer is not None:
        found["PgBouncer, transaction mode"] = pgbouncer
    found["dbresilience"] = {"ENGINE": OURS, "OPTIONS": {"pool": sizes}}
    found["dbresilience, lease=request"] = {
        "ENGINE": OURS, "OPTIONS": {"pool": sizes, "resilience": {"lease": "request"}},
    }  # fmt: skip
    return {name: at | given for name, given in found.items()}


@contextmanager
def pgbouncer(server: PostgresServer, pool_size: int) -> Iterator[Settings | None]:
    """Run PgBouncer in transaction mode for the block; None where it is not installed."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        yield None
        return
    # PgBouncer refuses to run as root, and must be let into the server's folder.
    user = SYSTEM_USER if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder, port = Path(name), free_port()
        (folder / "users").write_text('"postgres" ""\n')
        (folder / "bouncer.ini").write_text(
            f"[databases]\n{DATABASE} = host={server.host} port={server.port or 5432} dbname={DATABASE} "
            f"pool_size={pool_size}\n"
            f"[pgbouncer]\nlisten_addr =\nlisten_port = {port}\nunix_socket_dir = {folder}\nauth_type = trust\n"
            f"auth_file = {folder}/users\npool_mode = transaction\nmax_client_conn = 500\nlogfile = {folder}/log\n"
            "ignore_startup_parameters = extra_float_digits,options\n"
        )
        if user is not None:
            account = pwd.getpwnam(user)
            for path in (folder, *folder.iterdir()):
                os.chown(path, account.pw_uid, account.pw_gid)
        process = subprocess.Popen(
            [program, "-q", folder / "bouncer.ini"], user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            _wait_for(folder, port)
            yield {
                "ENGINE": DJANGO, "CONN_MAX_AGE": None, "HOST": str(folder), "PORT": str(port),
                "DISABLE_SERVER_SIDE_CURSORS": True,
            }  # fmt: skip
        finally:
            process.terminate()
            process.wait(timeout=10)


def _wait_for(folder: Path, port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(host=str(folder), port=port, user="postgres", dbname=DATABASE).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
