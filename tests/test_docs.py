"""The documentation says what is so: its commands run, its settings load, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import ProgrammingError, connection, transaction
from django.dispatch import Signal

import dbresilience
from config.startup import url_database
from dbresilience import signals
from dbresilience.conf import Configuration
from dbresilience.management.commands.dbresilience import Command
from dbresilience.meanings import CANNOT_CONNECT
from tests.settings import BASE_DIR
from tests.support.devserver import Devserver
from tests.support.ports import free_port
from tests.support.system_tools import missing_tool

PAGES = sorted([*BASE_DIR.glob("*.md"), *(BASE_DIR / "docs").rglob("*.md"), *(BASE_DIR / "benchmarks").glob("*.md")])
TESTED = re.compile(r"<!-- tested(?:: (?P<says>.+?))? -->\n```bash\n(?P<command>.+?)```", re.DOTALL)
CODE = re.compile(r"^( *)```python\n(.+?)^ *```", re.DOTALL | re.MULTILINE)
URLS = sorted({url for page in PAGES for url in re.findall(r"DATABASE_URL=(postgresql://[^\s`]+)", page.read_text())})
ORDERS = re.compile(r"manage\.py dbresilience ((?:doctor|pause|resume|recycle|status|watch)(?: --[\w-]+(?: \d+)?)*)")
COMMANDS = sorted({order for page in PAGES for order in ORDERS.findall(page.read_text())})
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
    from dbresilience import logs, meanings

    page = (BASE_DIR / "docs" / "howto" / "when-the-pager-rings.md").read_text()
    events = {event for _, event, _, _ in logs._MESSAGES} | {"slow_query", "request_refused"}
    classes = {each.name for each in vars(meanings).values() if isinstance(each, meanings.Classification)}
    states = {"ok", "timeout"}
    assert {name for name in events | classes | states if f"`{name}`" not in page} == set()


def test_every_other_line_and_every_logger_is_explained() -> None:
    """What is written with a traceback has no event; what is reported each second says its own name."""
    page = (BASE_DIR / "docs" / "howto" / "when-the-pager-rings.md").read_text()
    code = "\n".join(path.read_text() for path in (BASE_DIR / "dbresilience").rglob("*.py"))
    lines = [re.split("[;:]", text)[0] for text in re.findall(r'\.exception\("([^"%]+)"', code)]
    reported = ["measures", *re.findall(r'\beach_second\("(\w+)"', code)]
    lines += [f"{name} could not be reported" for name in reported]
    lines += [f"{name} could not be ended" for name in re.findall(r'\bafter_last_turn\("(\w+)"', code)]
    assert len(lines) > 6
    assert {each for each in lines if f"*{each}*" not in page} == set()
    loggers = set(re.findall(r'getLogger\("(dbresilience\.\w+)"', code))
    said = page.split("Loggers:")[1].split("```")[0]
    assert len(loggers) > 3
    assert {each for each in loggers if f"`{each}`" not in said} == set()


def test_every_public_name_is_in_the_reference() -> None:
    """A heading for what can be called, a row for what can be caught."""
    reference = BASE_DIR / "docs" / "reference"
    headings = re.findall(r"^## (\w+)$", (reference / "python.md").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| `(\w+)` \|", (reference / "errors.md").read_text(), re.MULTILINE)
    assert set(dbresilience.__all__) <= {*headings, *rows}


def test_every_page_is_in_the_readme() -> None:
    """So that nobody must know its name."""
    linked = set(re.findall(r"\]\(([^)#]+)", (BASE_DIR / "README.md").read_text()))
    pages = {str(page.relative_to(BASE_DIR)) for page in PAGES if page.name != "README.md"}
    assert pages <= linked


@pytest.mark.parametrize("url", URLS)
def test_every_url_in_the_pages_is_accepted(url: str) -> None:
    """By the site's settings and by the backend."""
    left_out = "secret@db.example.org" if "//…" in url else "secret"
    database = url_database(url.replace("…", left_out), engine="dbresilience")
    configuration = Configuration.from_settings("default", database, debug=False)
    for name, value in re.findall(r"[?&](?:pool_)?(\w+)=(\d+)", url):
        found = getattr(configuration, name, None) or getattr(configuration, f"{name}_seconds", None)
        assert (found or database["OPTIONS"][name]) == float(value)


@pytest.mark.parametrize("arguments", COMMANDS)
def test_every_order_in_the_pages_is_one(arguments: str) -> None:
    """`manage.py dbresilience …` takes the arguments that a page gives it."""
    assert Command().create_parser("manage.py", "dbresilience").parse_args(arguments.split())


@pytest.mark.django_db(transaction=True)
def test_the_recipe_for_a_part_that_may_be_missing() -> None:
    """In time it is there, late it is not, and the rest of the page, or of its transaction, goes on."""
    names: dict[str, Any] = {}
    (code,) = (each for page, each in python_blocks() if "def if_in_time" in each)
    exec(compile(code, "the recipe", "exec"), names)

    def asked(seconds: float) -> list[Any]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds])
            return cursor.fetchall()

    with transaction.atomic():
        assert len(names["if_in_time"](lambda: asked(0))) == 1
        assert names["if_in_time"](lambda: asked(5)) == []
        assert len(asked(0)) == 1
    with pytest.raises(ProgrammingError):
        names["if_in_time"](lambda: connection.cursor().execute("SELECT nonsense"))


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
            if "auth/token" in command:
                command += '\necho "$TOKEN"'
            done = subprocess.run(["bash", "-c", command], cwd=BASE_DIR, env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}{done.stdout}{done.stderr}"
            if says:
                assert says in done.stdout
            if "auth/token" in command:
                env["TOKEN"] = done.stdout.strip()
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
