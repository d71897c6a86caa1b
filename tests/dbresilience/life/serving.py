"""A process that serves as an application server's worker does, for tests of how it warms up."""

from __future__ import annotations

from tests.support.site import run_python

HANDLER = """
import os, time, threading
from django.db import connection, connections, transaction
from django.core.wsgi import get_wsgi_application
import dbresilience
from dbresilience import warmup
pool = dbresilience.get_database_resources()
def warmed():
    until = time.monotonic() + 12
    while pool.snapshot().warm_up == "running":
        assert time.monotonic() < until
        time.sleep(0.01)
    return pool.snapshot()
def rehearsed():
    assert warmed().warm_up == "done"
    for thread in threading.enumerate():
        if thread.name.endswith("warm-up"): thread.join(10)
def serve(**options):
    # As a worker does that has these options; `pool` is then theirs.
    global pool
    connection.settings_dict["OPTIONS"] |= options
    pool = dbresilience.get_database_resources()
    get_wsgi_application()
def slow():
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(0.7)")
    asked.append(time.monotonic())
asked = []
"""


def outcome(code: str, database_url: str) -> str:
    done = run_python(HANDLER + code, database_url)
    assert done.returncode == 0, done.stderr
    return done.stderr
