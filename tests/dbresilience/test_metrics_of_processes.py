"""metrics.py in processes of their own: forked, reloaded, with a folder that cannot be used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.settings import BASE_DIR
from tests.support.site import run_python


def test_bad_folders_stop_the_start(tmp_path: Path) -> None:
    """With the name of the variable; one that is not there is made."""
    program = "import django; django.setup(); import os; print(os.listdir(os.environ['PROMETHEUS_MULTIPROC_DIR']))"

    def start(folder: str) -> subprocess.CompletedProcess[str]:
        env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.dbresilience.metrics_site",
                            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing"}  # fmt: skip
        return subprocess.run(
            [sys.executable, "-c", program],
            cwd=BASE_DIR, env=env | {"PROMETHEUS_MULTIPROC_DIR": folder}, capture_output=True, text=True,
        )  # fmt: skip

    (tmp_path / "file").touch()
    for folder in ("", str(tmp_path / "file"), str(tmp_path / "file" / "within")):
        done = start(folder)
        assert done.returncode != 0
        assert "PROMETHEUS_MULTIPROC_DIR is" in done.stderr.strip().splitlines()[-1]
    done = start(str(tmp_path / "new" / "folder"))
    assert done.returncode == 0, done.stderr
    assert not list((tmp_path / "new" / "folder").glob("gauge_live*"))


@pytest.mark.slow
def test_a_process_of_a_moment_leaves_what_it_counted_and_no_state(database_url: str, tmp_path: Path) -> None:
    """Its first report is its last; who reads the folder afterwards must not take its connections for open ones."""
    program = """
import django
django.setup()
from django.db import connection
with connection.cursor() as cursor:
    cursor.execute("VALUES (1)")
"""
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.dbresilience.metrics_site", "DATABASE_URL": database_url}
    subprocess.run(
        [sys.executable, "-c", program],
        cwd=BASE_DIR, env=env | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, check=True, timeout=60,
    )  # fmt: skip
    assert list(tmp_path.glob("counter_*.db"))
    assert not list(tmp_path.glob("gauge_live*"))


@pytest.mark.slow
def test_a_forked_child_counts_for_itself(database_url: str, tmp_path: Path) -> None:
    """Also one forked while another thread counts; together they count what both have done."""
    program = """
import django, os, threading, time
django.setup()
from django.db import connection, connections
from dbresilience import recording, reporting
from dbresilience.instruments import SLOW_QUERIES
def ask(times):
    for _ in range(times):
        with connection.cursor() as cursor:
            cursor.execute("VALUES (1)")
ask(5)
prometheus = recording.recorder_named("prometheus")
stop = threading.Event()
def count():
    while not stop.is_set():
        prometheus.add(SLOW_QUERIES, ("other",), 1)
threading.Thread(target=count, daemon=True).start()
children = []
for _ in range(40):
    pid = os.fork()
    if not pid:
        prometheus.add(SLOW_QUERIES, ("default",), 1)
        if not children:
            ask(7)
            reporting.report()
        os._exit(0)
    children.append(pid)
for pid in children:
    deadline = time.monotonic() + 20
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        assert time.monotonic() < deadline, "a child hangs"
        time.sleep(0.01)
stop.set()
reporting.report()
from dbresilience.metrics import shared_registry
found = shared_registry()
assert found.get_sample_value("dbresilience_slow_queries_total", {"pool": "default"}) == 40
leases = {"pool": "default", "reason": "statement"}
assert found.get_sample_value("dbresilience_leases_total", leases) == 12
assert found.get_sample_value("db_client_connection_max", {"pool": "default"}) == 10
print("right")
"""
    env = os.environ | {"DJANGO_SETTINGS_MODULE": "tests.dbresilience.metrics_site", "DATABASE_URL": database_url}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        cwd=BASE_DIR, env=env | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert done.stdout == "right\n", done.stderr


@pytest.mark.parametrize(
    "reload", ["importlib.reload(sys.modules[name])", "del sys.modules[name]; importlib.import_module(name)"]
)
def test_modules_that_are_executed_again_count_once(reload: str, database_url: str) -> None:
    """As hot reload does it, each module in turn."""
    program = f"""
import importlib, sys
from django.db import connection
from prometheus_client import REGISTRY
from dbresilience import recording, reporting, scraping, signals

def ask():
    with connection.cursor() as cursor:
        cursor.execute("VALUES (1)")

def number(name, **labels):
    return REGISTRY.get_sample_value(name, {{"pool": "default", **labels}})

ask()
for short in "process instruments operation_names measures reporting recording metrics telemetry scraping".split():
    name = f"dbresilience.{{short}}"
    {reload}
ask()
sys.modules["dbresilience.scraping"].install()
ask()
signals.emit(signals.slow_query, "default", query=None)
sys.modules["dbresilience.reporting"].report()
leases = number("dbresilience_leases_total", reason="statement")
assert leases == 3, leases
assert number("dbresilience_slow_queries_total") == 1
"""
    done = run_python(program, database_url)
    assert done.returncode == 0, done.stderr
