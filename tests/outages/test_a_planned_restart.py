"""PostgreSQL is restarted on purpose: an operator pauses the processes, restarts it, and nobody is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site, site_environment
from tests.support.visitor import Crowd, Writers, visitor_with_token

pytestmark = [pytest.mark.slow, pytest.mark.timed]


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_nobody_is_refused_and_nothing_is_lost(
    start_site: Callable[..., Site], postgres: ThrowawayPostgres, database_url: str, tmp_path: Path, worker_class: str
) -> None:
    """Two processes, readers and writers, the command as an operator gives it: 200 and nothing else."""
    url = f"{database_url}?runtime_folder={tmp_path / 'orders'}&pool_max_size=4"

    def order(*arguments: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "manage.py", "dbresilience", *arguments, "--json"],
            cwd=BASE_DIR, env=site_environment(DATABASE_URL=url), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        told: dict[str, object] = json.loads(done.stdout)
        return told

    site = start_site(url=url, worker_class=worker_class, WEB_CONCURRENCY="2")
    program = visitor_with_token(site)
    with Crowd(program, people=5) as readers, Writers(program, people=3) as writers:
        time.sleep(1)
        paused_at = time.monotonic()
        told = order("pause", "--seconds=30")
        postgres.restart("fast")
        order("resume")
        resumed_at = time.monotonic()
        readers.first(200, since=resumed_at)
        time.sleep(1)
    print(f"{worker_class}: {told}; {resumed_at - paused_at:.2f} s from pause to resume")
    assert set(readers.statuses()) == set(writers.statuses()) == {200}
    assert (told["paused"], told["at_work"]) == (True, 0)
    writers.check_that_all_is_stored_once()
