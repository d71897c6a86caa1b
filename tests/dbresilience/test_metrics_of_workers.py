"""metrics.py across gunicorn's workers: what they count together is what their clients counted, whoever dies."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from dbresilience import warmup
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import Site

pytestmark = [pytest.mark.slow, pytest.mark.timed]

WORKERS = 4
POOL_SIZE = 2


@pytest.fixture
def start_workers(start_site: Callable[..., Site], database_url: str, var: Path) -> Callable[..., Site]:
    def start(worker_class: str = "gthread", **options: Any) -> Site:
        url = f"{database_url}{'&' if '?' in database_url else '?'}pool_max_size={POOL_SIZE}&pool_timeout=0.2"
        site = start_site(
            url=url,
            worker_class=worker_class,
            VAR_DIR=str(var),
            DJANGO_SETTINGS_MODULE="tests.dbresilience.metrics_site",
            WEB_CONCURRENCY=str(WORKERS),
            **options,
        )
        if "port" not in options:
            expect_soon(lambda: expect_warm(scrape(site)))
        return site

    return start


Numbers = dict[tuple[str, ...], float]


def scrape(site: Site) -> dict[str, Numbers]:
    """What `/metrics` says."""
    with urllib.request.urlopen(f"{site.url}/metrics", timeout=10) as response:
        return numbers(text_string_to_metric_families(response.read().decode()))


def numbers(families: Iterable[Metric]) -> dict[str, Numbers]:
    """Each metric's numbers by the values of its labels, without the alias."""
    found: dict[str, Numbers] = {}
    for family in families:
        for sample in family.samples:
            labels = tuple(value for label, value in sorted(sample.labels.items()) if label != "pool")
            assert labels not in found.setdefault(sample.name, {}), sample
            found[sample.name][labels] = sample.value
    return found


def by_route(found: dict[str, Numbers]) -> Counter[str]:
    """Requests that were refused, whatever the cause."""
    routes: Counter[str] = Counter()
    for (_, route, _), number in found.get("dbresilience_requests_refused_total", {}).items():
        routes[route] += int(number)
    return routes


def ask(site: Site, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(site.url + path, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, ""


class Crowd:
    """Clients that count what they were answered."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.answers: Counter[tuple[str, int]] = Counter()
        self.pids: set[int] = set()

    def ask(self, paths: list[str]) -> None:
        with ThreadPoolExecutor(24) as pool:
            for path, (status, text) in zip(paths, pool.map(lambda path: ask(self.site, path), paths), strict=True):
                self.answers[path.split("/")[1], status] += 1
                self.pids |= {int(text)} if text else set()

    def expect(self, found: dict[str, Numbers]) -> None:
        """What the workers have counted is what these clients have counted."""
        done = {path: self.answers[path, 200] for path in ("one", "two", "hold")}
        refused = {path: self.answers[path, 503] for path in ("one", "two", "hold")}
        leases = found["dbresilience_leases_total"]
        warmed = found["dbresilience_warm_up_seconds_count"]["done",]
        assert leases["statement",] == done["one"] + done["hold"] + warmed
        assert leases["transaction",] == done["two"]
        assert sum(leases.values()) == sum(done.values()) + warmed
        for name in ("wait_time", "use_time"):
            assert sum(found[f"db_client_connection_{name}_seconds_count"].values()) == sum(done.values()) + warmed
        operations = found["db_client_operation_duration_seconds_count"]
        assert operations["", "VALUES"] == sum(done.values())
        assert operations.get(("", "SHOW"), 0) == done["two"]
        routes = {"one": "one", "two": "two", "hold": "hold/<int:number>"}
        assert by_route(found) == {routes[path]: number for path, number in refused.items() if number}
        # On a busy machine a connection may not be opened within the pool's time-out, and a warm-up tries again.
        most_of_warm_ups = (warmup.ATTEMPTS - 1) * 2 * warmed
        of_warm_ups = found["db_client_connection_timeouts_total"][()] - sum(refused.values())
        assert 0 <= of_warm_ups <= most_of_warm_ups
        causes = found.get("dbresilience_refusals_total", {})
        assert 0 <= sum(causes.values()) - sum(refused.values()) <= most_of_warm_ups
        exhausted = found["dbresilience_exhaustions_total"]["timed_out",] - causes.get(("pool_exhausted",), 0)
        assert 0 <= exhausted <= of_warm_ups
        assert sum(self.answers.values()) == sum(done.values()) + sum(refused.values())


LOAD = ["/one", "/two"] * 150 + ["/hold/5"] * 30 + ["/one"] * 30


def expect_soon(what: Callable[[], object]) -> None:
    """Within the second or two that a worker takes to report."""
    deadline = time.monotonic() + 10
    while True:
        try:
            what()
        except (AssertionError, KeyError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.3)
        else:
            return


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_workers_count_what_their_clients_counted(start_workers: Callable[..., Site], worker_class: str) -> None:
    """To the last one: leases, statements, refusals and answers by route; also after a worker was killed."""
    site = start_workers(worker_class)
    crowd = Crowd(site)
    crowd.ask(LOAD)
    while len(crowd.pids) < WORKERS:
        crowd.ask(["/one"] * 24)
    assert crowd.answers["hold", 503], "nobody was refused, so this shows nothing of refusals"
    expect_soon(lambda: crowd.expect(scrape(site)))
    expect_soon(lambda: expect_gauges(scrape(site), processes=WORKERS))

    victim = min(crowd.pids)
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{victim}").exists(), what="the end of the worker")
    crowd.expect(scrape(site))
    expect_gauges(scrape(site), processes=WORKERS - 1)

    crowd.pids.clear()
    while len(crowd.pids) < WORKERS:
        crowd.ask(["/one"] * 24)
    assert victim not in crowd.pids
    expect_soon(lambda: crowd.expect(scrape(site)))
    expect_soon(lambda: expect_gauges(scrape(site), processes=WORKERS))


def expect_warm(found: dict[str, Numbers]) -> None:
    """Each process has asked once before anybody does, which is a lease, too."""
    assert found["dbresilience_warm_up_seconds_count"]["done",] == WORKERS


def expect_gauges(found: dict[str, Numbers], *, processes: int) -> None:
    assert found["db_client_connection_max"][()] == processes * POOL_SIZE
    assert found["db_client_connection_idle_max"][()] == processes * POOL_SIZE
    assert found["dbresilience_breaker_processes"] == {("closed",): processes, ("open",): 0, ("paused",): 0}
    assert found["db_client_connection_count"]["used",] == 0
    assert 1 <= found["db_client_connection_count"]["idle",] <= processes * POOL_SIZE


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_the_last_second_of_a_stopped_worker_counts(
    start_workers: Callable[..., Site], worker_class: str, var: Path
) -> None:
    """SIGTERM right after the last answer: what was measured since the last report is in the files."""
    site = start_workers(worker_class)
    crowd = Crowd(site)
    crowd.ask(["/one", "/two"] * 40)
    assert site.stop() == 0
    (folder,) = (var / "metrics").iterdir()
    assert not list(folder.glob("gauge_live*"))
    crowd.expect(numbers(MultiProcessCollector(CollectorRegistry(), path=str(folder)).collect()))


def test_a_scrape_needs_no_database(start_workers: Callable[..., Site], postgres: ThrowawayPostgres) -> None:
    """While the server is stopped it says so, and each refused request is counted by its route."""
    site = start_workers()
    crowd = Crowd(site)
    crowd.ask(["/one"] * 40)
    postgres.stop()
    crowd.ask(["/one"] * 40 + ["/two"] * 20)
    took = []

    def expect_outage() -> None:
        began = time.monotonic()
        found = scrape(site)
        took.append(time.monotonic() - began)
        refused = by_route(found)
        assert refused == {"one": crowd.answers["one", 503], "two": crowd.answers["two", 503]}
        assert found["dbresilience_breaker_processes"]["open",] >= 1
        assert found["dbresilience_breaker_changes_total"]["open",] >= 1
        assert found["dbresilience_connect_failures_total"][()] >= 1
        of_warm_ups = sum(found["dbresilience_refusals_total"].values()) - sum(refused.values())
        assert 0 <= of_warm_ups <= (warmup.ATTEMPTS - 1) * 2 * WORKERS

    expect_soon(expect_outage)
    assert max(took) < 2


def test_each_start_counts_from_nothing(start_workers: Callable[..., Site]) -> None:
    """The folder of the last time is emptied, but not by a start that finds its port taken."""
    site = start_workers()
    crowd = Crowd(site)
    crowd.ask(["/one"] * 20)
    expect_soon(lambda: crowd.expect(scrape(site)))
    second = start_workers(port=site.port)
    assert second.process is not None
    assert second.process.wait(20) != 0
    crowd.expect(scrape(site))
    site.stop()
    site.start()
    crowd = Crowd(site)
    crowd.ask(["/one", "/two"])
    expect_soon(lambda: crowd.expect(scrape(site)))
