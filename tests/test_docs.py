"""The documentation says what is so: its commands run, its settings load, its links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.dispatch import Signal

from dbresilience import signals
from dbresilience.meanings import CANNOT_CONNECT
from tests.settings import BASE_DIR
from tests.support.chromium import missing_tool
from tests.support.devserver import Devserver
from tests.support.ports import free_port

PAGES = sorted([*BASE_DIR.glob("*.md"), *(BASE_DIR / "docs").rglob("*.md"), *(BASE_DIR / "benchmarks").glob("*.md")])
TESTED = re.compile(r"<!-- tested(?:: (?P<says>.+?))? -->\n```bash\n(?P<command>.+?)```", re.DOTALL)
CODE = re.compile(r"^( *)```python\n(.+?)^ *```", re.DOTALL | re.MULTILINE)
# Read by others than us, or only by the tests.
NOT_SETTINGS = {"DJANGO_SETTINGS_MODULE", "PYTHONUNBUFFERED"}


def commands_of(page: str) -> list[tuple[str, str | None]]:
    found = TESTED.finditer((BASE_DIR / page).read_text())
    return [(match["command"], match["says"]) for match in found]


def python_blocks() -> list[tuple[str, str]]:
    blocks = []
    for page in PAGES:
        for indent, code in CODE.findall(page.read_text()):
            blocks.append((page.name, re.sub(rf"^{indent}", "", code, flags=re.MULTILINE)))
    return blocks


@pytest.fixture
def receivers_as_before() -> Iterator[None]:
    """What a page's code connects is gone after its test."""
    every = [each for each in vars(signals).values() if isinstance(each, Signal)]
    before = [list(each.receivers) for each in every]
    yield
    for signal, receivers in zip(every, before, strict=True):
        signal.receivers = receivers
        signal.sender_receivers_cache.clear()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link and picture is a file of this repository; a fragment is a heading of it."""
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        name, _, heading = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert heading in {re.sub(r"[^\w-]", "", each.lower().replace(" ", "-")) for each in headings}, target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_named_exist(page: Path) -> None:
    """Modules and folders that a page names are there, in the repository or in the package."""
    named = re.findall(r"[\w./-]+\.(?:py|txt|toml)\b|(?<=`)[\w-]+/(?=`)", page.read_text())
    roots = (BASE_DIR, BASE_DIR / "dbresilience")
    assert [name for name in named if not any((root / name).exists() for root in roots)] == []


def test_every_variable_is_in_the_readme_and_in_the_code() -> None:
    """The table of the README and what the site reads are the same."""
    table = (BASE_DIR / "README.md").read_text().split("## Configuration")[1].split("## Production")[0]
    first_column = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {name for cell in first_column for name in re.findall(r"`([A-Z_]+)`", cell)}
    sources = "\n".join(path.read_text() for path in (BASE_DIR / "config").glob("*.py"))
    read = set(re.findall(r"""env\.\w+\(\s*["']([A-Z_]+)["']""", sources))
    read |= set(re.findall(r"""os\.environ(?:\.get|\.setdefault)?[(\[]["']([A-Z_]+)["']""", sources))
    assert documented == read - NOT_SETTINGS


def test_every_make_target_named_exists() -> None:
    """`make …` in the pages is something that make knows."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (BASE_DIR / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"(?:^|`)make ([a-z-]+)", page.read_text(), re.MULTILINE))
        assert named <= targets, page


@pytest.mark.django_db
@pytest.mark.usefixtures("receivers_as_before")
@pytest.mark.parametrize(("page", "code"), python_blocks(), ids=lambda text: text.strip().split("\n")[0][:40])
def test_python_in_the_pages_is_right(page: str, code: str) -> None:
    """Settings are accepted by the backend; middleware and imports exist."""
    from django.utils.module_loading import import_string

    from dbresilience.conf import Configuration

    names: dict[str, object] = {}
    exec(compile(code, page, "exec"), names)
    if isinstance(databases := names.get("DATABASES"), dict):
        for alias, database in databases.items():
            assert database["ENGINE"] == "dbresilience"
            Configuration.from_settings(alias, database, debug=False)
    middleware = names.get("MIDDLEWARE", [])
    assert isinstance(middleware, list)
    for path in middleware:
        assert path is ... or import_string(path)


def test_every_event_and_every_class_is_explained() -> None:
    """Whoever is on call finds each name that a line or a probe can show."""
    from dbresilience import errors, logs

    page = (BASE_DIR / "docs" / "howto" / "when-the-pager-rings.md").read_text()
    events = {event for _, event, _, _ in logs._MESSAGES} | {"slow_query", "request_refused"}
    classes = {each.name for each in vars(errors).values() if isinstance(each, errors.Classification)}
    states = {"ok", "timeout"}
    assert {name for name in events | classes | states if f"`{name}`" not in page} == set()


@pytest.mark.usefixtures("receivers_as_before")
def test_the_recipe_for_metrics_counts() -> None:
    """Its receivers hear the signals, and its gauges are numbers."""
    names: dict[str, Any] = {}
    (code,) = (each for page, each in python_blocks() if "metrics = Counter()" in each)
    exec(compile(code, "the recipe", "exec"), names)
    signals.emit(signals.connection_failed, "default", exception=None, connect_seconds=0.0)
    signals.emit(signals.request_refused, None, classification=CANNOT_CONNECT, status=503)
    assert names["metrics"] == {("db.connection_failed", "default"): 1, ("db.refused", "cannot_connect"): 1}
    assert set(map(type, names["gauges"]().values())) == {int}


@pytest.mark.slow
def test_the_tutorial_runs(var: Path) -> None:
    """Every command of the tutorial, in order, against `make run` on another port."""
    for tool in ("curl", "make"):
        if shutil.which(tool) is None:
            missing_tool(f"{tool} is not installed")
    port = free_port()
    server = Devserver(var, port)
    try:
        server.wait_until_ready()
        env = os.environ | {"VAR_DIR": str(var), "TOKEN": "none yet"}
        env.pop("DATABASE_URL", None)
        for command, says in commands_of("docs/tutorial.md"):
            command = command.replace(":8000", f":{port}")
            done = subprocess.run(["bash", "-c", command], cwd=BASE_DIR, env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}{done.stdout}{done.stderr}"
            if says:
                assert says in done.stdout
            if "auth/token" in command:
                env["TOKEN"] = json.loads(done.stdout)["token"]
            if "event-stream" in command:
                events = re.findall(r"^event: (\w+)", done.stdout, re.MULTILINE)
                assert {"turn", "tool_call", "tool_result", "delta", "done"} == set(events)
                assert events[-1] == "done"
                assert events.count("delta") > 1
    finally:
        server.process.terminate()
        server.process.wait(30)


@pytest.mark.slow
def test_the_way_back_runs() -> None:
    """The command of the page about going back."""
    for command, _ in commands_of("docs/howto/go-back.md"):
        done = subprocess.run(["bash", "-c", command], cwd=BASE_DIR, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
