"""How long a connection is waited for when 50 users chat and 4 workers poll: ours alone, pools of 10."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading

from config.postgres import PostgresServer

from . import turns
from .setups import DATABASE, OURS, Settings

WORKERS = 4
MODEL_SECONDS = 1.0
POLL = """
import sys, time
from django.conf import settings
settings.configure(DATABASES={"default": __import__("json").loads(sys.argv[1])}, INSTALLED_APPS=[
    "django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True)
import django; django.setup()
from django.contrib.auth.models import User
from django.db import transaction
while True:
    with transaction.atomic():
        list(User.objects.select_for_update(skip_locked=True).order_by("pk")[:1])
    time.sleep(0.1)
"""


def measure(server: PostgresServer, seconds: float) -> str:
    """Return the table."""
    database: Settings = {
        "ENGINE": OURS, "NAME": DATABASE, "USER": "postgres", "HOST": server.host, "PORT": "5432",
    }  # fmt: skip
    workers = [subprocess.Popen([sys.executable, "-c", POLL, json.dumps(database)]) for _ in range(WORKERS)]
    try:
        with turns.served(database, MODEL_SECONDS, BENCH_WAITS="1") as port:
            threading.Timer(MODEL_SECONDS, _waits, [port]).start()  # what was waited before does not count
            outcome = turns.Site(port).ask(server, seconds, warm_seconds=MODEL_SECONDS)
            waits = sorted(_waits(port))
    finally:
        for worker in workers:
            worker.terminate()
            worker.wait()
    at = {part: waits[int(len(waits) * part)] * 1000 for part in (0.5, 0.99)}
    kind = f"{turns.CLIENTS} users, {WORKERS} polling workers, a model of {MODEL_SECONDS * 1000:.0f} ms"
    heads = (kind, "turns a second", "leases", "median wait ms", "99 % wait ms", "longest ms", "not 200")
    figures = ("dbresilience", f"{outcome.rate:.0f}", f"{len(waits)}", f"{at[0.5]:.2f}", f"{at[0.99]:.2f}",
               f"{waits[-1] * 1000:.1f}", f"{outcome.errors}")  # fmt: skip
    return "\n".join([f"| {' | '.join(heads)} |", "|---" + "|---:" * 6 + "|", f"| {' | '.join(figures)} |", ""])


def _waits(port: int) -> list[float]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/waited")
    return list(json.load(connection.getresponse())["waits"])
