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
from prometheus_client import CollectorRegistry

from dbresilience.instruments import INSTRUMENTS
from dbresilience.metrics import PrometheusRecorder
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
