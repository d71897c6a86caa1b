"""warmup.py at a fork: what a parent has begun is no burden for its child."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.dbresilience.life.serving import outcome
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site


def test_who_forks_in_the_middle_of_it_keeps_nothing(database_url: str) -> None:
    """What the warm-up opens after the fork is let go of, too."""
    outcome(
        """
import dbresilience.warmup
dbresilience.warmup.FORK_WAITS_SECONDS = 0.2
begun, forked = threading.Event(), threading.Event()
def ask_after_the_fork():
    begun.set()
    assert forked.wait(5)
    slow()
serve(warm_up_with=ask_after_the_fork)
assert begun.wait(5)
child = os.fork()
if not child:
    os._exit(0)
os.waitpid(child, 0)
opened_before = pool.snapshot().opened_total
forked.set()
assert warmed().warm_up in ("done", "failed")
assert asked and pool.snapshot().opened_total > opened_before, "nothing was opened after the fork"
until = time.monotonic() + 3
while pool.snapshot().size:
    assert time.monotonic() < until, pool.snapshot()
    time.sleep(0.02)
""",
        database_url,
    )


@pytest.mark.parametrize("kind", ["worker", "child of one that was asked"])
def test_a_fork_waits_for_what_it_imports(database_url: str, tmp_path: Path, kind: str) -> None:
    """Else the child finds that module locked by a thread that it does not have, and never gets it."""
    (tmp_path / "takes_long.py").write_text("import time\ntime.sleep(1.5)\n")
    asked = 'request_started.send(sender=None, environ={"PATH_INFO": "/"})' if "asked" in kind else ""
    outcome(
        f"""
import signal, sys
from django.core.signals import request_started
sys.path.insert(0, {str(tmp_path)!r})
begun = threading.Event()
def import_it():
    begun.set()
    import takes_long
serve(warm_up_with=import_it)
{asked}
assert begun.wait(5)
time.sleep(0.2)
child = os.fork()
if not child:
    signal.alarm(8)
    import takes_long
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0, "it hung"
""",
        database_url,
    )


def test_the_child_of_a_serving_process_stays_cold(database_url: str) -> None:
    """A program of multiprocessing's is no worker of the server, whether it was asked before or not."""
    outcome(
        """
import multiprocessing
get_wsgi_application()
warmed()
def child(answer):
    time.sleep(0.3)
    answer.put((dbresilience.get_database_resources().snapshot().opened_total,))
answer = multiprocessing.get_context("fork").Queue()
process = multiprocessing.get_context("fork").Process(target=child, args=[answer])
process.start()
assert answer.get(timeout=10) == (0,)
process.join()
""",
        database_url,
    )


def test_a_preloading_server_hands_it_on_to_its_workers(
    start_site: Callable[..., Site], database_url: str, postgres: ThrowawayPostgres
) -> None:
    """The process that forks keeps no session; each worker has its own, before it is asked."""
    site = start_site(GUNICORN_CMD_ARGS="--preload", WEB_CONCURRENCY="2")
    name = database_url.rsplit("/", 1)[1]
    wait_until(lambda: site.log.count("warm-up done") == 3, what=f"three warm-ups:\n{site.log}")
    wait_until(lambda: postgres.backends(name) == 2)
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(site.status("/api/threads", token="nonsense")))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [401] * 20
    assert site.stop() == 0
    wait_until(lambda: postgres.backends(name) == 0)
