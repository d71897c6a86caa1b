"""stopping.py: what runs when a process ends is finished or cancelled, and no session stays."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from dbresilience import stopping
from tests.settings import BASE_DIR
from tests.support.asker import Asker
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site, run_python, site_environment

pytestmark = pytest.mark.slow


@contextmanager
def asking(site: Site, answers: Counter[str], *, people: int) -> Iterator[None]:
    """So many ask for what needs the database, without being allowed to have it: 401."""
    with ExitStack() as stack:
        for _ in range(people):
            stack.enter_context(Asker(f"{site.url}/api/threads", answers, Authorization="Token nonsense"))
        yield


ENDS = """
import sys, threading, time
from django.db import connection
connection.ensure_connection()
def sleep():
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(60)")
    except Exception:
        pass
for _ in range(3): threading.Thread(target=sleep, daemon=True).start()
asleep = 0
while asleep < 3:
    time.sleep(0.05)
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state = 'active' AND query LIKE 'SELECT pg_sleep%'"
        )
        (asleep,) = cursor.fetchone()
"""


@pytest.mark.timed
@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise KeyboardInterrupt", "import os; os.kill(os.getpid(), 2)"])
def test_what_still_runs_is_cancelled(end: str, database_url: str, postgres: ThrowawayPostgres) -> None:
    """At once, and without a word of the interpreter's; the server does not find it out by looking at its clients."""
    began = time.monotonic()
    done = run_python(ENDS + end, f"{database_url}?client_check_seconds=none")
    assert time.monotonic() - began < 5
    wait_until(lambda: postgres.backends(database_url.rsplit("/", 1)[1]) == 0, timeout_seconds=1)
    assert "couldn't stop" not in done.stderr
    assert done.stderr.count("Traceback") == ("KeyboardInterrupt" in done.stderr)


@pytest.mark.timed
def test_a_frozen_server_holds_no_exit_up(database_url: str, postgres: ThrowawayPostgres) -> None:
    environment = {**site_environment(DATABASE_URL=database_url), "DJANGO_SETTINGS_MODULE": "config.settings"}
    code = "import django; django.setup()\n" + ENDS + "print('ready', flush=True)\nsys.stdin.read()\n"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=BASE_DIR, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        postgres.freeze()
        try:
            began = time.monotonic()
            process.communicate(timeout=10)
            assert time.monotonic() - began < 2
        finally:
            postgres.thaw()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has filters for sockets")
def test_a_socket_that_lets_nobody_in() -> None:
    """Who is there stays; who comes later hears nothing until the socket is closed, and is then refused, not cut."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        with socket.create_connection(address, timeout=1) as early:
            stopping._let_nobody_in(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            accepted, _ = listening.accept()
            with accepted:
                early.sendall(b"?")
                assert accepted.recv(1) == b"?"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=1)


RUNSERVER = """
import threading, time, urllib.request
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler, WSGIServer
from django.core.wsgi import get_wsgi_application
from django.utils.functional import SimpleLazyObject
from dbresilience import stopping
application = get_wsgi_application()
def slow(environ, start_response):
    time.sleep(float(environ["PATH_INFO"][1:]))
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
def serve(kind):
    server = kind(("127.0.0.1", 0), WSGIRequestHandler)
    server.set_app(slow)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server
def ask(server, seconds):
    threading.Thread(
        target=lambda: urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/{seconds}").read(), daemon=True
    ).start()
    time.sleep(0.3)
"""


@pytest.mark.timed
def test_a_server_without_threads_is_waited_for_no_longer(database_url: str) -> None:
    """As with `runserver --nothreading`, whose request may be a stream."""
    done = run_python(
        RUNSERVER
        + "server = serve(WSGIServer)\nask(server, 20)\nbegan = time.monotonic()\n"
        + "stopping.finish_requests(0.5)\nassert time.monotonic() - began < 2",
        database_url,
    )
    assert done.returncode == 0, done.stderr


def test_nothing_lazy_is_made_to_find_a_server(database_url: str) -> None:
    """Whatever lives in the process, a save ends it and goes on."""
    done = run_python(
        RUNSERVER
        + "made = []\nlazy = SimpleLazyObject(lambda: made.append(1))\nserver = serve(ThreadedWSGIServer)\n"
        + "stopping.finish_requests(0.5)\nassert not made\nassert server.socket.fileno() == -1",
        database_url,
    )
    assert done.returncode == 0, done.stderr


def test_an_error_in_another_exit_handler_changes_nothing(database_url: str, postgres: ThrowawayPostgres) -> None:
    done = run_python(
        "import atexit\nfrom django.db import connection\natexit.register(lambda: 1 / 0)\n"
        "connection.ensure_connection()\natexit.register(lambda: 1 / 0)",
        database_url,
    )
    assert done.stderr.count("ZeroDivisionError") == 2
    assert "the process ends" in done.stderr
    wait_until(lambda: postgres.backends(database_url.rsplit("/", 1)[1]) == 0, timeout_seconds=1)


@pytest.mark.timed
@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_a_loaded_server_answers_everything_it_has_taken(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres, worker_class: str
) -> None:
    """SIGTERM: every answer that was made arrives, the process ends in time, and no session stays.

    Who had connected and was not taken before the socket was closed is cut off by the system; nobody can prevent that.
    """
    site = start_site(worker_class=worker_class, WEB_CONCURRENCY="2")
    answers = Counter[str]()
    with asking(site, answers, people=8):
        wait_until(lambda: answers.total() > 100)
        began = time.monotonic()
        assert site.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began < 6
    assert set(answers) <= {"401", "refused", "cut (ConnectionResetError)"}, answers
    assert answers["401"] == site.log.count("Unauthorized: /api/threads")
    assert postgres.backends(database_url.rsplit("/", 1)[1]) == 0
    assert "Traceback" not in site.log


def test_workers_that_are_replaced_lose_nothing(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """gunicorn's `max_requests`, again and again."""
    site = start_site(WEB_CONCURRENCY="2", GUNICORN_CMD_ARGS="--max-requests 30 --max-requests-jitter 10")
    name = database_url.rsplit("/", 1)[1]
    answers, most, until = Counter[str](), 0, time.monotonic() + 40
    with asking(site, answers, people=4):
        while answers.total() < 200 and time.monotonic() < until:
            most = max(most, postgres.backends(name))
            time.sleep(0.02)
    assert set(answers) == {"401"}, answers
    assert answers.total() >= 200
    assert most <= 20
    assert site.stop() == 0
    wait_until(lambda: postgres.backends(name) == 0, timeout_seconds=1)
