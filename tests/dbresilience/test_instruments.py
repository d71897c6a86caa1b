"""instruments.py and operation_names.py: the names of the conventions, which Prometheus takes, too."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from shutil import which
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from dbresilience import instruments
from dbresilience.instruments import INSTRUMENTS
from dbresilience.measures import REASONS
from dbresilience.metrics import PrometheusRecorder
from dbresilience.operation_names import operation_of
from tests.support.system_tools import missing_tool

ACCEPTED_BY_NAME = "db_client_connection_count"
"""A gauge whose name, by OpenTelemetry's conventions, ends like a part of a histogram."""


@pytest.mark.timed
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


def test_every_reason_is_explained() -> None:
    assert set(instruments.LEASE_ENDS) == set(REASONS)
