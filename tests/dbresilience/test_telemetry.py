"""telemetry.py: the same facts as OpenTelemetry instruments, for whatever provider the application has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import transaction
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from dbresilience import __version__, instruments, recording, reporting, signals
from dbresilience.instruments import INSTRUMENTS
from dbresilience.meanings import CANNOT_CONNECT
from dbresilience.telemetry import OpenTelemetryRecorder
from tests.dbresilience.conftest import MakeWrapper, run


@pytest.fixture
def reader() -> Iterator[InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    before = recording.recorder_named("opentelemetry")
    recording.record_with("opentelemetry", OpenTelemetryRecorder(__version__, provider))
    yield reader
    recording.record_with("opentelemetry", before)
    provider.shutdown()


def told(reader: InMemoryMetricReader, alias: str) -> dict[str, tuple[Any, dict[tuple[tuple[str, Any], ...], Any]]]:
    """Each metric of one pool, with its points by their other attributes."""
    found: dict[str, tuple[Any, dict[tuple[tuple[str, Any], ...], Any]]] = {}
    data = reader.get_metrics_data()
    assert data is not None
    for resource in data.resource_metrics:
        for scope in resource.scope_metrics:
            assert (scope.scope.name, scope.scope.version) == ("dbresilience", __version__)
            for metric in scope.metrics:
                points = {}
                for point in metric.data.data_points:
                    attributes = dict(point.attributes or {})
                    if attributes.pop("db.client.connection.pool.name", alias) == alias:
                        points[tuple(sorted(attributes.items()))] = point
                found[metric.name] = metric, points
    return found


def test_the_same_facts(reader: InMemoryMetricReader, make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper(pool={"max_size": 3, "min_size": 1}, resilience={"slow_query_seconds": 0.02})
    run(wrapper, "VALUES (1)")
    with pytest.raises(Exception, match="nonsense"):
        run(wrapper, "SHOW nonsense")
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "VALUES (pg_sleep(0.03))")
    reporting.report()
    found = told(reader, wrapper.alias)
    system = ("db.system.name", "postgresql")
    durations = found["db.client.operation.duration"][1]
    assert durations[("db.operation.name", "VALUES"), system].count == 2
    assert durations[("db.operation.name", "SHOW"), system, ("error.type", "42704")].count == 1
    assert durations[("db.operation.name", "VALUES"), system].sum >= 0.03
    assert durations[("db.operation.name", "VALUES"), system].explicit_bounds == instruments.BUCKETS
    for name in ("wait_time", "use_time"):
        assert found[f"db.client.connection.{name}"][1][()].count == 3
    assert found["db.client.connection.create_time"][1][()].count >= 1
    states = found["db.client.connection.count"][1]
    assert states[("db.client.connection.state", "used"),].value == 0
    assert states[("db.client.connection.state", "idle"),].value >= 1
    assert found["db.client.connection.max"][1][()].value == 3
    assert found["db.client.connection.idle.min"][1][()].value == 1
    assert found["db.client.connection.timeouts"][1][()].value == 0
    assert found["dbresilience.leases"][1][("dbresilience.reason", "transaction"),].value == 1
    assert found["dbresilience.slow_queries"][1][()].value == 1
    assert not found["db.client.connection.count"][0].data.is_monotonic
    assert found["db.client.connection.timeouts"][0].data.is_monotonic


def test_a_refused_request(reader: InMemoryMetricReader) -> None:
    match = type("Match", (), {"route": "threads/<uuid:id>"})
    request = type("Request", (), {"resolver_match": match})
    signals.emit(
        signals.request_refused, None, exception=None, classification=CANNOT_CONNECT, status=503, request=request
    )
    reporting.report()
    ((attributes, point),) = told(reader, "")["dbresilience.requests.refused"][1].items()
    assert dict(attributes) == {
        "dbresilience.cause": "cannot_connect", "http.response.status_code": 503, "http.route": "threads/<uuid:id>",
    }  # fmt: skip
    assert point.value == 1


def test_every_instrument_has_its_unit_and_meaning(reader: InMemoryMetricReader) -> None:
    recorder = recording.recorder_named("opentelemetry")
    for each in INSTRUMENTS:
        labels = tuple("503" if label == "status" else values[0] if values else "x"
                       for label, values in each.labels.items())  # fmt: skip
        if each.kind == instruments.HISTOGRAM:
            recorder.observe(each, labels, [0.1])
        elif each.kind == instruments.COUNTER:
            recorder.add(each, labels, 1)
        else:
            recorder.set(each, labels, 1)
    found = {name: (metric.unit, metric.description) for name, (metric, _) in told(reader, "x").items()}
    assert found == {each.name: (each.unit, f"{each.meaning}.") for each in INSTRUMENTS}
