"""metrics.py and recording.py: every event and duration has its number, under the names of the conventions."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from dbresilience import instruments, recording, reporting, retry, signals
from dbresilience.base import DatabaseWrapper
from dbresilience.meanings import CANNOT_CONNECT
from dbresilience.metrics import AllProcesses
from tests.dbresilience.conftest import MakeWrapper, in_thread, run


def number(name: str, alias: str | None = None, **labels: str) -> float:
    """What this process has counted so far."""
    reporting.report()
    if alias is not None:
        labels["pool"] = alias
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_statements_and_leases(make_wrapper: MakeWrapper) -> None:
    began = time.time()
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
    assert began <= number("dbresilience_last_success_timestamp_seconds", wrapper.alias) <= time.time()


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


@pytest.mark.timed
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


def test_installing_again_changes_nothing() -> None:
    from dbresilience import scraping

    before = recording.recorder_named("prometheus"), threading.active_count()
    scraping.install()
    assert (recording.recorder_named("prometheus"), threading.active_count()) == before


def test_an_event_within_the_librarys_own_lock_is_counted(wrapper: DatabaseWrapper) -> None:
    """A garbage collection may begin there, and close a cursor whose connection is lost."""
    run(wrapper, "SELECT 1")
    recorder = recording.recorder_named("prometheus")
    reason = "the test says so"
    counter = recorder._child(instruments.CONDEMNED, (wrapper.alias, reason))

    def condemn() -> None:
        with counter._value._lock:
            signals.emit(signals.pool_condemned, wrapper.alias, reason=reason, generation=1, unreachable=False)

    thread = threading.Thread(target=condemn, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it waits for itself"
    assert number("dbresilience_generations_condemned_total", wrapper.alias, reason=reason) == 1


def test_a_file_that_a_process_has_just_made_is_no_reason_to_fail(tmp_path: Path) -> None:
    """It is empty for a moment; a scrape at the start of a worker was answered 500."""
    registry = CollectorRegistry()
    AllProcesses(registry, str(tmp_path))
    written = MmapedDict(str(tmp_path / "counter_1.db"))
    written.write_value(mmap_key("a_total", "a_total", [], [], "As."), 7.0, 0.0)
    (tmp_path / "counter_2.db").touch()
    assert registry.get_sample_value("a_total") == 7
    written.close()
