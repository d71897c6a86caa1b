"""dbresilience/contrib/prometheus: the alerts ring when they should, and the dashboard asks for what there is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.db import Error
from prometheus_client import CollectorRegistry

from dbresilience import measures
from dbresilience.instruments import INSTRUMENTS
from dbresilience.metrics import PrometheusRecorder
from tests.dbresilience.conftest import MakeWrapper, run
from tests.places import BASE_DIR
from tests.support.system_tools import missing_tool

FOLDER = BASE_DIR / "dbresilience" / "contrib" / "prometheus"
RULES = FOLDER / "alerts.yml"
TESTS = Path(__file__).parent / "alerts_test.yml"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
OURS = re.compile(r"\b((?:db_client|dbresilience)_\w+)\s*(?:\{([^}]*)\})?")
SCRAPED = {"job", "instance", "le"}
"""Labels that Prometheus and histograms add."""


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        missing_tool("promtool is not installed")
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return list(group["rules"])


def expressions_of_dashboard() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return found + [each["expr"] for each in DASHBOARD["annotations"]["list"]]


def test_the_alerts_ring_when_they_should_and_not_before() -> None:
    """As Prometheus itself evaluates them, over made-up hours."""
    done = promtool("test", "rules", str(TESTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


@pytest.mark.parametrize(
    ("query", "parameters"),
    [("SELECT %s", ["a\0b"]), ("SELECT %s, %s", [1]), ("SELECT %s", [object()]), ("SELECT nonsense", None),
     ("SELECT 1 / 0", None)],
)  # fmt: skip
def test_the_programs_own_errors_count_as_success(make_wrapper: MakeWrapper, query: str, parameters: Any) -> None:
    """By the label that they really get: the server's have a SQLSTATE, psycopg's own have a class."""
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    heard: list[measures.Drained] = []
    measures.drain()
    measures.subscribe("test", heard.append)
    try:
        with pytest.raises(Error):
            run(wrapper, query, parameters)
        measures.drain()
    finally:
        measures.unsubscribe("test")
    (label,) = [error for each in heard if each.alias == wrapper.alias for _, _, error in each.statements]
    assert label
    left_out = [found for each in [*(rule["expr"] for rule in rules()), *expressions_of_dashboard()]
                for found in re.findall(r'error!~"([^"]+)"', each)]  # fmt: skip
    assert len(left_out) == 2
    assert all(re.fullmatch(each, label) for each in left_out), label


def test_the_rules_are_rules() -> None:
    """Those of the file, and every expression of the dashboard as if it were one."""
    assert promtool("check", "rules", str(RULES)).returncode == 0


def test_every_expression_of_the_dashboard_can_be_parsed(tmp_path: Path) -> None:
    """With Grafana's variables replaced as Grafana does."""
    replaced = [each.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$pool", ".*")
                for each in expressions_of_dashboard()]  # fmt: skip
    assert not [each for each in replaced if "$" in each]
    file = tmp_path / "rules.yml"
    recorded = [{"record": f"panel:{number}", "expr": each} for number, each in enumerate(replaced)]
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried_both_ways() -> None:
    """Ringing and silent, in the file that promtool evaluates."""
    cases = [case for test in yaml.safe_load(TESTS.read_text())["tests"] for case in test["alert_rule_test"]]
    alerts = {rule["alert"] for rule in rules() if "alert" in rule}
    assert alerts == {case["alertname"] for case in cases if case.get("exp_alerts")}
    assert alerts == {case["alertname"] for case in cases if not case.get("exp_alerts")}


@pytest.mark.parametrize("where", ["alerts", "their tests", "dashboard"])
def test_only_metrics_that_exist_are_asked_for(where: str) -> None:
    """Their names as prometheus_client shows them, and their labels."""
    registry = CollectorRegistry()
    PrometheusRecorder(registry)
    labels = {each.prometheus_name.removesuffix("_total"): {*each.labels} for each in INSTRUMENTS}
    names: dict[str, set[str]] = {}
    for metric in registry.collect():
        endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}.get(metric.type, ("",))
        names |= {f"{metric.name}{ending}": labels[metric.name] for ending in endings}
    text = {
        "alerts": "\n".join(rule["expr"] for rule in rules()),
        "their tests": TESTS.read_text(),
        "dashboard": "\n".join(expressions_of_dashboard()),
    }[where]
    asked = OURS.findall(text)
    assert len(asked) > 5
    for name, selector in asked:
        assert name in names, name
        assert set(re.findall(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"", selector)) <= names[name] | SCRAPED, (name, selector)


def test_the_dashboard_can_be_imported() -> None:
    """Its data source is a variable, its panels are numbered and do not overlap, and a variable names each pool."""
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "pool"]
    assert variables["datasource"]["type"] == "datasource"
    assert {panel["datasource"]["uid"] for panel in DASHBOARD["panels"]} == {"${datasource}"}
    assert [panel["id"] for panel in DASHBOARD["panels"]] == list(range(1, len(DASHBOARD["panels"]) + 1))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_alerts_say_what_to_do() -> None:
    """A summary, a description, a severity, and a place on the page about them."""
    page = (BASE_DIR / "docs" / "howto" / "alert.md").read_text()
    for rule in rules():
        if "alert" in rule:
            assert set(rule["annotations"]) == {"summary", "description"}
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert f"`{rule['alert']}`" in page
