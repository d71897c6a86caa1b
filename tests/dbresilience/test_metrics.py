"""metrics.py and recording.py: every event and duration has its number, under the names of the conventions."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from dbresilience import instruments, recording, reporting, retry, signals
from dbresilience.instruments import INSTRUMENTS
from dbresilience.meanings import CANNOT_CONNECT
from dbresilience.measures import REASONS
from dbresilience.metrics import PrometheusRecorder
from dbresilience.operation_names import operation_of
from tests.dbresilience.conftest import MakeWrapper, in_thread, run
from tests.settings import BASE_DIR
from tests.support.system_tools import missing_tool

ACCEPTED_BY_NAME = "db_client_connection_count"
"""A gauge whose name, by OpenTelemetry's conventions, ends like a part of a histogram."""


def number(name: str, alias: str | None = None, **labels: str) -> float:
    """What this process has counted so far."""
    if alias is not None:
        labels["pool"] = alias
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_statements_and_leases(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_size": 3, "min_size": 1})
    for _ in range(3):
        run(wrapper, "SELECT 7")
    run(wrapper, "VALUES (1)")
    with pytest.raises(Exception, match="nonsense"):
        run(wrapper, "SHOW nonsense")
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SHOW server_version")
    reporting.report()

    def durations(operation: str, error: str = "") -> float:
        name = "db_client_operation_duration_seconds_count"
        return number(name, wrapper.alias, operation=operation, error=error)

    assert durations("VALUES") == durations("SHOW") == durations("SHOW", "42704") == 1
    assert durations("SELECT") >= 3
    leases = number("db_client_connection_use_time_seconds_count", wrapper.alias)
    assert leases == number("db_client_connection_wait_time_seconds_count", wrapper.alias) == 6
    assert number("dbresilience_leases_total", wrapper.alias, reason="statement") == 5
    assert number("dbresilience_leases_total", wrapper.alias, reason="transaction") == 1
    assert number("db_client_connection_create_time_seconds_count", wrapper.alias) >= 1
    assert number("db_client_connection_max", wrapper.alias) == 3
    assert number("db_client_connection_idle_max", wrapper.alias) == 3
    assert number("db_client_connection_idle_min", wrapper.alias) == 1
    assert abs(number("dbresilience_last_success_timestamp_seconds", wrapper.alias) - time.time()) < 5


def test_what_is_used_and_who_waits(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 5})
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        waiting = in_thread(lambda: connections[wrapper.alias].cursor().close())
        while not wrapper.resources.snapshot().waiting:
            time.sleep(0.01)
        reporting.report()
        assert number("db_client_connection_count", wrapper.alias, state="used") == 1
        assert number("db_client_connection_count", wrapper.alias, state="idle") == 0
        assert number("db_client_connection_pending_requests", wrapper.alias) == 1
    waiting.join()
    reporting.report()
    assert number("db_client_connection_count", wrapper.alias, state="used") == 0
    assert number("db_client_connection_pending_requests", wrapper.alias) == 0


def test_exhaustion_and_refusals(make_wrapper: MakeWrapper) -> None:
    """Nobody gave one back, or too many wait; both are refusals, one is a timeout."""
    wrapper = make_wrapper(pool={"max_size": 1, "timeout": 0.4, "max_waiting": 1})

    def refused() -> None:
        with pytest.raises(OperationalError):
            connections[wrapper.alias].cursor()

    with wrapper.cursor() as cursor:
        cursor.execute("SELECT 1")
        first = in_thread(refused)
        while not wrapper.resources.snapshot().waiting:
            time.sleep(0.01)
        in_thread(refused).join()
        first.join()
    assert number("db_client_connection_timeouts_total", wrapper.alias) == 1
    assert number("dbresilience_exhaustions_total", wrapper.alias, kind="timed_out") == 1
    assert number("dbresilience_exhaustions_total", wrapper.alias, kind="too_many_waiting") == 1
    assert number("dbresilience_refusals_total", wrapper.alias, cause="pool_exhausted") == 2
    assert number("dbresilience_last_failure_timestamp_seconds", wrapper.alias) > time.time() - 5


@pytest.mark.slow
def test_an_outage_and_its_end(make_wrapper: MakeWrapper, postgres: Any) -> None:
    """The breaker, the generation, the failures: also those of probes, which send no signal each."""
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    postgres.stop()
    for _ in range(3):
        with pytest.raises(OperationalError):
            run(wrapper, "SELECT 1")
    reporting.report()
    assert number("dbresilience_breaker_processes", wrapper.alias, breaker="open") == 1
    assert number("dbresilience_breaker_processes", wrapper.alias, breaker="closed") == 0
    assert number("dbresilience_breaker_changes_total", wrapper.alias, breaker="open") == 1
    assert number("dbresilience_refusals_total", wrapper.alias, cause="cannot_connect") >= 2
    failures = wrapper.resources.snapshot().connect_failures_total
    reporting.report()
    counted = number("dbresilience_connect_failures_total", wrapper.alias)
    assert failures <= counted <= wrapper.resources.snapshot().connect_failures_total
    postgres.start()
    while not wrapper.resources.snapshot().idle:
        try:
            run(wrapper, "SELECT 1")
        except OperationalError:
            time.sleep(0.05)
    reporting.report()
    assert number("dbresilience_breaker_changes_total", wrapper.alias, breaker="closed") == 1
    assert number("dbresilience_breaker_processes", wrapper.alias, breaker="closed") == 1
    assert sum(sample.value for family in REGISTRY.collect() if family.name == "dbresilience_generations_condemned"
               for sample in family.samples
               if sample.labels["pool"] == wrapper.alias and sample.name.endswith("_total")) >= 1  # fmt: skip


def test_a_full_server_is_an_exhaustion(make_wrapper: MakeWrapper, postgres: Any) -> None:
    wrapper = make_wrapper()
    run(wrapper, "ALTER ROLE postgres CONNECTION LIMIT -1")
    role = f"few_{os.getpid()}_{wrapper.alias}"
    run(wrapper, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
    try:
        url = wrapper.settings_dict
        other = make_wrapper(pool={"timeout": 0.3})
        other.settings_dict |= {"USER": role, "NAME": url["NAME"]}
        with pytest.raises(OperationalError):
            run(other, "SELECT 1")
        reporting.report()
        assert number("dbresilience_exhaustions_total", wrapper.alias, kind="server_full") >= 1
    finally:
        wrapper.resources.close()
        connections[wrapper.alias] = wrapper
        run(wrapper, f"DROP ROLE {role}")


@pytest.mark.slow
def test_connections_are_refreshed_for_their_age(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_lifetime": 0.5, "min_size": 1})
    deadline = time.monotonic() + 10
    while not number("dbresilience_connections_closed_total", wrapper.alias, reason="max_lifetime"):
        assert time.monotonic() < deadline
        run(wrapper, "SELECT 1")
        time.sleep(0.3)


def test_retries_by_outcome(make_wrapper: MakeWrapper) -> None:
    """A unit that fails once and runs well then, and one that never does."""
    wrapper = make_wrapper()
    attempts: list[int] = []

    def conflict(*, times: int) -> None:
        attempts.append(1)
        if len(attempts) <= times:
            run(wrapper, "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$")

    @retry(using=wrapper.alias, attempts=2)
    def once() -> None:
        with transaction.atomic(using=wrapper.alias):
            conflict(times=1)

    @retry(using=wrapper.alias, attempts=2)
    def always() -> None:
        with transaction.atomic(using=wrapper.alias):
            conflict(times=100)

    def retries(outcome: str) -> float:
        return number("dbresilience_retries_total", wrapper.alias, kind="unit", outcome=outcome)

    once()
    assert (retries("again"), retries("succeeded"), retries("given_up")) == (1, 1, 0)
    with pytest.raises(OperationalError):
        always()
    assert (retries("again"), retries("succeeded"), retries("given_up")) == (2, 1, 1)


def test_slow_queries(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.02})
    run(wrapper, "SELECT pg_sleep(0.03)")
    assert number("dbresilience_slow_queries_total", wrapper.alias) == 1


def test_refused_requests_by_route_and_never_by_path() -> None:
    class Request:
        resolver_match: Any = None
        path = "/secret/7"

    match = type("Match", (), {"route": "threads/<uuid:id>"})
    before = number("dbresilience_requests_refused_total", route="unresolved", status="503", cause="cannot_connect")
    details = {"exception": None, "classification": CANNOT_CONNECT, "status": 503}
    signals.emit(signals.request_refused, None, request=Request(), **details)
    resolved = Request()
    resolved.resolver_match = match
    signals.emit(signals.request_refused, None, request=resolved, **details)
    by_route = {"status": "503", "cause": "cannot_connect"}
    assert number("dbresilience_requests_refused_total", route="unresolved", **by_route) == before + 1
    assert number("dbresilience_requests_refused_total", route="threads/<uuid:id>", **by_route) == 1
    assert b"secret/7" not in generate_latest(REGISTRY)


def test_the_breaker_and_its_pause(make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    wrapper.resources.pause(30)
    reporting.report()
    assert number("dbresilience_breaker_processes", wrapper.alias, breaker="paused") == 1
    wrapper.resources.resume()
    reporting.report()
    assert number("dbresilience_breaker_processes", wrapper.alias, breaker="paused") == 0
    assert number("dbresilience_breaker_changes_total", wrapper.alias, breaker="paused") == 1


@pytest.mark.parametrize(
    ("query", "operation"),
    [
        ("SELECT 1", "SELECT"),
        ("  \n(select 1) UNION (select 2)", "SELECT"),
        ("/* route='/x' */ -- more\nINSERT INTO x VALUES (1)", "INSERT"),
        (b"update x SET y = 1", "UPDATE"),
        (sql.SQL("DELETE FROM {}").format(sql.Identifier("x")), "DELETE"),
        (sql.Composed([sql.SQL("WITH a AS (SELECT 1) "), sql.SQL("SELECT 2")]), "WITH"),
        ("FETCH", "FETCH"),
        ("nonsense", "OTHER"),
        ("", "OTHER"),
        (";" * 400, "OTHER"),
        ("/*" * 150, "OTHER"),
        ("/**/" * 75, "OTHER"),
        (sql.Composed([]), "OTHER"),
        (object(), "OTHER"),
    ],
)
def test_a_statement_is_one_word_of_few(query: Any, operation: str) -> None:
    began = time.perf_counter()
    assert operation_of(query) == operation
    assert time.perf_counter() - began < 0.1


# Names


def test_names_and_units_are_those_of_the_conventions() -> None:
    """All nine of connections, and the duration of operations; nothing of the older names."""
    from opentelemetry.semconv._incubating.metrics import db_metrics

    units: dict[str, tuple[str, str]] = {}

    class Meter:
        def __getattr__(self, method: str) -> Callable[..., None]:
            return lambda name, unit, description: units.update({name: (method, unit)})

    for name, create in vars(db_metrics).items():
        if name.startswith(("create_db_client_connection_", "create_db_client_operation_duration")):
            create(Meter())
    wanted = {"create_up_down_counter": "gauge", "create_counter": "counter", "create_histogram": "histogram"}
    ours = {each.name: (each.kind, each.unit) for each in INSTRUMENTS if each.name.startswith("db.")}
    assert ours == {name: (wanted[method], unit) for name, (method, unit) in units.items()}
    assert len(ours) == 10
    assert all(each.name.startswith("dbresilience.") for each in INSTRUMENTS if each.name not in ours)


def test_labels_are_attributes_of_the_conventions() -> None:
    from opentelemetry.semconv._incubating.attributes import db_attributes, error_attributes, http_attributes

    known = {value for module in (db_attributes, error_attributes, http_attributes)
             for name, value in vars(module).items() if name.isupper()}  # fmt: skip
    for label, (attribute, _) in instruments.LABELS.items():
        assert attribute in known or attribute == f"dbresilience.{label}", label
    assert instruments.SYSTEM[0] in known


def everything() -> str:
    """All metrics, each with a number."""
    registry = CollectorRegistry()
    recorder = PrometheusRecorder(registry)
    for each in INSTRUMENTS:
        labels = tuple(values[0] if values else "x" for values in each.labels.values())
        if each.kind == instruments.HISTOGRAM:
            recorder.observe(each, labels, [0.0, 0.0001, 0.02, 99.0])
        elif each.kind == instruments.COUNTER:
            recorder.add(each, labels, 2)
        else:
            recorder.set(each, labels, 3)
    return generate_latest(registry).decode()


def test_a_batch_is_the_same_as_one_after_the_other() -> None:
    text = everything()
    (family,) = (each for each in text_string_to_metric_families(text)
                 if each.name == instruments.WAIT_TIME.prometheus_name)  # fmt: skip
    found = {sample.labels.get("le", sample.name.rpartition("_")[2]): sample.value for sample in family.samples}
    assert found["count"] == found["+Inf"] == 4
    assert found["0.0001"] == 2
    assert found["0.01"] == 2
    assert found["0.025"] == found["10.0"] == 3
    assert found["sum"] == pytest.approx(99.0201)


def test_the_names_please_prometheus() -> None:
    """`promtool check metrics` has nothing to say but of the one name that is not ours to choose."""
    promtool = which("promtool")
    if promtool is None:
        missing_tool("promtool is not installed")
    text = "".join(line for line in everything().splitlines(keepends=True) if "_created" not in line)
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if line]
    assert [line for line in said if not line.startswith(ACCEPTED_BY_NAME)] == []


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


def test_installing_again_changes_nothing() -> None:
    from dbresilience import scraping

    before = recording.recorder_named("prometheus"), threading.active_count()
    scraping.install()
    assert (recording.recorder_named("prometheus"), threading.active_count()) == before


def test_every_reason_is_explained() -> None:
    assert set(instruments.LEASE_ENDS) == set(REASONS)
