"""The import rule: faces read snapshots and signals, nothing imports base, the two packages stay apart."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import dbresilience
from tests.settings import BASE_DIR

PACKAGE = BASE_DIR / "dbresilience"


def imports_of(path: Path) -> set[str]:
    """Modules of dbresilience that `path` imports at run time, by their short names."""
    found: set[str] = set()
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and (node.level or (node.module or "").startswith("dbresilience")):
            module = (node.module or "").removeprefix("dbresilience").strip(".")
            found |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.removeprefix("dbresilience.") for alias in node.names
                      if alias.name.startswith("dbresilience")}  # fmt: skip
    return found


def test_the_ground_floor_imports_nothing_of_ours() -> None:
    """conf, errors and signals can be read alone, each with the one list that it explains."""
    for name in ("parsers", "process", "operation_names"):
        assert not imports_of(PACKAGE / f"{name}.py"), name
    for name in ("meanings", "signals", "measures"):
        assert imports_of(PACKAGE / f"{name}.py") == {"process"}, name
    assert imports_of(PACKAGE / "options.py") == {"parsers"}
    assert imports_of(PACKAGE / "conf.py") == {"options", "parsers"}
    assert imports_of(PACKAGE / "errors.py") == {"meanings", "process"}
    assert imports_of(PACKAGE / "instruments.py") == {"measures"}


def test_faces_read_snapshots_and_signals() -> None:
    """What shows the state of the pool does not reach into it."""
    recorded = {
        "history_file",
        "history_reading",
        "incarnations",
        "intervals",
        "operators",
        "processes",
        "percentiles",
        "snapshot",
    }
    faces = {
        "logs": {"signals", "connection", "slow_queries"},
        "probes": {"health", "readiness", "resources"},
        "reporting": {"measures", "process", "signals"},
        "recording": {
            "errors", "instruments", "measures", "operation_names", "process", "reporting", "resources",
            "signals", "snapshot",
        },
        "metrics": {"instruments", "recording", "reporting"},
        "telemetry": {"instruments", "recording"},
        "scraping": {"__version__", "metrics", "telemetry"},
        "contrib/toolbar": {"signals", "slow_queries", "watching", "contrib.toolbar_stats"},
        "contrib/toolbar_stats": {"measures", "slow_queries", "watching"},
        "history": {"happenings", "history_file", "history_reading", "incarnations", "masking", "measures",
                    "percentiles", "process", "reporting", "resources", "signals", "slow_queries", "snapshot"},
        "history_file": {"percentiles"},
        "history_reading": {"history_file"},
        "masking": set(),
        "incarnations": set(),
        "happenings": {"errors"},
        "processes": recorded,
        "series": recorded,
        "headline": {"exit_codes", "looking_again", "plurals", "processes", "server_sessions"},
        "overview": {*recorded, "headline", "resources", "server_sessions"},
        "status_text": {"headline", "plurals"},
        "live_view": {"status_text"},
        "contrib/dashboard/pages": {"access", "operators", "outage_pass", "overview", "resources", "series"},
        "contrib/dashboard/access": {"deadline", "errors", "outage_pass"},
        "contrib/dashboard/outage_pass": set(),
    }  # fmt: skip
    for name, allowed in faces.items():
        assert imports_of(PACKAGE / f"{name}.py") <= allowed, name


def test_verdicts_ask_nobody() -> None:
    """The doctor's rules are functions of facts; asking, showing and typing are rooms of their own."""
    allowed = {
        "capacity": {"plurals"}, "findings": set(), "advice": {"conf", "options"}, "facts": {"capacity", "conf"},
        "diagnosis": {"advice", "capacity", "conf", "facts", "findings"},
        "consulting": {"capacity", "doctor", "exit_codes", "findings", "plurals"},
        "doctor": {"addresses", "aliases", "capacity", "checks", "checks.rules", "deadlines", "diagnosis", "errors",
                   "examining", "facts", "findings", "meanings", "resources"},
        "examining": {"aliases", "capacity", "connection", "facts", "resources", "slots"},
        "slots": {"capacity", "connection"},
    }  # fmt: skip
    for name, modules in allowed.items():
        assert imports_of(PACKAGE / f"{name}.py") <= modules, name


def test_system_checks_read_settings_alone() -> None:
    """But for the one that does the sum, which asks the server as the doctor does."""
    for path in (PACKAGE / "checks").glob("*.py"):
        found = imports_of(path) & {"resources", "connection", "pool", "examining", "doctor"}
        assert found == ({"examining"} if path.name == "capacity.py" else set()), path


def test_nothing_depends_on_faces_for_other_packages() -> None:
    """Those packages are optional; what only Django admin imports puts the dashboard into it."""
    others = [path for path in PACKAGE.rglob("*.py") if "contrib" not in path.parts and path.name != "admin.py"]
    assert not [path.name for path in others if any(name.startswith("contrib") for name in imports_of(path))]


def test_nothing_imports_base() -> None:
    """It is Django's entrance, not ours."""
    assert not [path.name for path in PACKAGE.rglob("*.py") if "base" in imports_of(path)]


def test_dbresilience_does_not_know_the_chat() -> None:
    """A library that its example depends on, not the other way round."""
    for path in PACKAGE.rglob("*.py"):
        assert "chat" not in {
            (node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom)
        }, path


def test_the_chat_uses_public_names_only() -> None:
    """What it cannot do with `__all__`, a user cannot do either."""
    for path in (BASE_DIR / "chat").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "dbresilience":
                assert node.module == "dbresilience", path
                assert {alias.name for alias in node.names} <= set(dbresilience.__all__), path


def test_public_names_exist_and_are_sorted() -> None:
    """`__all__` is the contract."""
    assert dbresilience.__all__ == sorted(dbresilience.__all__)
    assert all(hasattr(dbresilience, name) for name in dbresilience.__all__)


def test_one_version() -> None:
    """The package and its metadata agree."""
    metadata = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())
    assert metadata["project"]["version"] == dbresilience.__version__
