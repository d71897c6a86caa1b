"""How processes start, part and end: fork with open connections, the first request, `manage.py check`, SIGTERM."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from statistics import median

import psycopg

from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site, manage, site_environment

from .setups import DJANGO, OURS, Settings

HANGING_SECONDS = 5.0
PAUSE_SECONDS = 0.3
"""Before each request, the first included: a processor that has just been busy would answer faster."""
CLIENTS = 20
ENGINES = {"Django's own backend": DJANGO, OURS: OURS}

# What a pool is open for when its process forks: both read a hundred rows, and each must get its own.
FORK = """
import json, os, sys, threading
from django.conf import settings
settings.configure(DATABASES={"default": json.loads(sys.argv[1])}, USE_TZ=True, INSTALLED_APPS=[])
import django; django.setup()
from django.db import connection
def wrong(start):
    rows = []
    for _ in range(10):
        with connection.cursor() as cursor:
            cursor.execute("SELECT generate_series(%s, %s)", [start, start + 99])
            rows += [row[0] - start for row in cursor.fetchall()]
    return sum(row != number % 100 for number, row in enumerate(rows)) + abs(len(rows) - 1000)
wrong(1)
child = os.fork()
found = wrong(100_000 if child else 200_000)
if not child:
    os._exit(min(found, 100))
found += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(found, flush=True)
os._exit(0)
"""


def measure(compared: dict[str, Settings], rounds: int) -> str:
    """Return all tables."""
    parts = [_forks({name: at for name, at in compared.items() if "PgBouncer" not in name}, rounds)]
    with ThrowawayPostgres() as server:
        server.execute("CREATE DATABASE life")
        url = server.url("life")
        manage("migrate", "--verbosity=0", database_url=url)
        manage("createsuperuser", "--noinput", "--username=demo", "--email=demo@example.com", database_url=url,
               DJANGO_SUPERUSER_PASSWORD="demo")  # fmt: skip
        parts += [_starts(url, rounds), _checks(url, rounds), _stops(server, url, rounds)]
    return "\n".join(parts)


# Fork


def _forks(compared: dict[str, Settings], rounds: int) -> str:
    lines = [
        "| fork with an open pool, both read | wrong rows | hung or failed, of all | seconds, median |",
        "|---|---:|---:|---:|",
    ]
    for name, database in compared.items():
        found = [_fork(database) for _ in range(rounds)]
        wrong = sum(rows for rows, _ in found if rows is not None)
        hung = sum(rows is None for rows, _ in found)
        seconds = [taken for rows, taken in found if rows is not None]
        shown = f"{median(seconds):.2f}" if seconds else "–"
        lines.append(f"| {name} | {wrong} | {hung} of {rounds} | {shown} |")
    return "\n".join([*lines, ""])


def _fork(database: Settings) -> tuple[int | None, float]:
    began = time.monotonic()
    # A group of its own: what hangs is ended with its child.
    process = subprocess.Popen(
        [sys.executable, "-c", FORK, json.dumps(database)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, process_group=0,
    )  # fmt: skip
    try:
        said, _ = process.communicate(timeout=HANGING_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return None, HANGING_SECONDS
    return (int(said) if said.strip().isdecimal() else None), time.monotonic() - began


# Start


def _starts(url: str, rounds: int) -> str:
    times: dict[str, list[list[float]]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name in random.sample(list(ENGINES), len(ENGINES)):
            with Site(url, DATABASE_ENGINE=ENGINES[name]) as site:
                token = _token(site)
            with Site(url, DATABASE_ENGINE=ENGINES[name]) as site:
                times[name].append([_timed(site, token) for _ in range(10)])
    lines = ["| start of gunicorn, `GET /api/threads` | first, ms | tenth, ms | ratio |", "|---|---:|---:|---:|"]
    for name, taken in times.items():
        first, tenth = (median(each[number] for each in taken) * 1000 for number in (0, 9))
        lines.append(f"| {name} | {first:.1f} | {tenth:.1f} | {first / tenth:.2f} |")
    return "\n".join([*lines, ""])


def _token(site: Site) -> str:
    body = json.dumps({"username": "demo", "password": "demo"}).encode()
    asked = urllib.request.Request(f"{site.url}/api/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return str(json.load(answer)["token"])


def _timed(site: Site, token: str) -> float:
    time.sleep(PAUSE_SECONDS)
    began = time.perf_counter()
    assert site.status("/api/threads", token=token) == 200
    return time.perf_counter() - began


def _checks(url: str, rounds: int) -> str:
    times: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name in random.sample(list(ENGINES), len(ENGINES)):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "manage.py", "check"],
                env=site_environment(DATABASE_URL=url, DATABASE_ENGINE=ENGINES[name]), capture_output=True, check=True,
            )  # fmt: skip
            times[name].append(time.perf_counter() - began)
    base = times["Django's own backend"]
    lines = ["| `manage.py check` of the chat | seconds, median | ratio, paired |", "|---|---:|---:|"]
    for name, taken in times.items():
        ratio = median(mine / theirs for mine, theirs in zip(taken, base, strict=True))
        lines.append(f"| {name} | {median(taken):.2f} | {ratio:.3f} |")
    return "\n".join([*lines, ""])


# Stop


def _stops(server: ThrowawayPostgres, url: str, rounds: int) -> str:
    lines = [
        "| SIGTERM while 20 clients chat | exit, s, longest | sessions left | answers | answered, not stored "
        "| stored, not answered | cut, never taken |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, engine in ENGINES.items():
        exits, left, lost, unheard, answers = [], 0, 0, 0, Counter[str]()
        for _ in range(rounds):
            with Site(url, DATABASE_ENGINE=engine, CHAT_AGENT_DELAY_SECONDS="0.1", CHAT_RATE="1000000/min") as site:
                token, stopping, acknowledged = _token(site), threading.Event(), list[str]()
                before = _complete(url)
                threads = [
                    threading.Thread(target=_chat, args=[site, token, stopping, acknowledged, answers])
                    for _ in range(CLIENTS)
                ]
                for thread in threads:
                    thread.start()
                time.sleep(2)
                began = time.monotonic()
                code = site.stop()
                exits.append(time.monotonic() - began if code == 0 else float("inf"))
                stopping.set()
                for thread in threads:
                    thread.join()
            left += server.backends("life")
            stored = _complete(url, acknowledged)
            lost += len(acknowledged) - stored
            unheard += _complete(url) - before - stored
        cut = sum(many for what, many in answers.items() if what.startswith("cut"))
        lines.append(f"| {name} | {max(exits):.1f} | {left} | {answers['200']} | {lost} | {unheard} | {cut} |")
    return "\n".join([*lines, ""])


def _complete(url: str, replies: list[str] | None = None) -> int:
    """Count what is answered to its end; of `replies`, or of all."""
    with psycopg.connect(url) as connection:
        found = connection.execute(
            "SELECT count(*) FROM chat_message WHERE role = 'assistant' AND status = 'complete'"
            " AND (%(all)s OR id = ANY(%(ids)s::uuid[]))",
            {"all": replies is None, "ids": replies or []},
        )
        return found.fetchall()[0][0]  # type: ignore[no-any-return]


def _chat(site: Site, token: str, stopping: threading.Event, acknowledged: list[str], answers: Counter[str]) -> None:
    asked = urllib.request.Request(
        f"{site.url}/api/chat", b'{"message": "hello"}',
        {"Content-Type": "application/json", "Authorization": f"Token {token}"},
    )  # fmt: skip
    while not stopping.is_set():
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                acknowledged.append(json.load(answer)["reply"]["id"])
            answers["200"] += 1
        except urllib.error.HTTPError as error:
            error.close()
            answers[str(error.code)] += 1
        except (OSError, ValueError) as error:
            cause = getattr(error, "reason", error)
            answers["refused" if isinstance(cause, ConnectionRefusedError) else f"cut {type(cause).__name__}"] += 1
            time.sleep(0.05)
