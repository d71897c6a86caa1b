"""The rooms stand: make targets, pinned requirements, the Procfile, and rules that hold for every module."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.settings import BASE_DIR
from tests.support.site import site_environment

OURS = ("config", "chat", "dbresilience", "tests", "benchmarks")
# In pieces, so that this file does not say them itself.
UNFINISHED = ["TO" + "DO", "FIX" + "ME", "XX" + "X:"]


def tracked_files() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=BASE_DIR, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [path for name in listed.stdout.splitlines() if (path := BASE_DIR / name).is_file()]


def modules() -> list[Path]:
    return [path for path in tracked_files() if path.suffix == ".py" and path.relative_to(BASE_DIR).parts[0] in OURS]


def requirements(name: str) -> list[Requirement]:
    lines = (line.split(" #")[0].strip() for line in (BASE_DIR / name).read_text().splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_bare_make_prints_help() -> None:
    """Every documented target is listed, and nothing is installed by asking."""
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    said = subprocess.run([make], cwd=BASE_DIR, capture_output=True, text=True, check=True).stdout
    for target in ("run", "test", "lint", "bench", "docs", "db-stop", "db-start"):
        assert re.search(rf"make {target} ", said), said


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned(name: str) -> None:
    """One exact version each, and the one that is installed here."""
    for requirement in requirements(name):
        assert re.fullmatch(r"==[\w.]+", str(requirement.specifier)), requirement
        if requirement.marker is None or requirement.marker.evaluate():
            assert metadata.version(requirement.name) in requirement.specifier


def test_django_follows_the_python() -> None:
    """The long-term release on Python 3.11, the newest one on later Pythons, and never two at once."""
    markers = {str(r.specifier): r.marker for r in requirements("requirements.txt") if r.name == "Django"}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        chosen = [name for name, marker in markers.items() if marker and marker.evaluate({"python_version": version})]
        assert len(chosen) == 1
        assert chosen[0].startswith("==5.2." if version == "3.11" else "==6.")


def test_package_needs_are_within_the_pins() -> None:
    """What `pip install .` asks for is what the site is tested with."""
    project = tomllib.loads((BASE_DIR / "pyproject.toml").read_text())["project"]
    for needed in map(Requirement, project["dependencies"]):
        assert metadata.version(needed.name) in needed.specifier


def test_procfile_commands_exist() -> None:
    """release, web and worker name files and commands that are there."""
    processes = dict(line.split(": ", 1) for line in (BASE_DIR / "Procfile").read_text().splitlines())
    assert set(processes) == {"release", "web", "worker"}
    for command in (part for line in processes.values() for part in line.split(" && ")):
        words = command.split()
        if words[0] == "gunicorn":
            assert (BASE_DIR / words[words.index("-c") + 1]).exists()
            continue
        assert words[:2] == ["python", "manage.py"]
        done = subprocess.run(
            [sys.executable, "manage.py", words[2], "--help"],
            cwd=BASE_DIR,
            env=site_environment(DEBUG="1"),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


def test_nothing_is_unfinished() -> None:
    """No notes to ourselves."""
    for path in tracked_files():
        if path.suffix in {".png", ".woff2", ".ico"} or "vendor" in path.parts:
            continue
        text = path.read_text(errors="replace")
        assert not [word for word in UNFINISHED if word in text], path


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt", "pyproject.toml"])
def test_packages_come_from_whatever_index_pip_is_set_to(name: str) -> None:
    """No index and no address of a package: a private mirror serves as well."""
    text = (BASE_DIR / name).read_text()
    assert "://" not in text
    assert "index-url" not in text


def test_every_module_says_what_it_is_for_and_fits_a_head() -> None:
    """A docstring first, at most 300 lines, no drawer for everything."""
    for path in modules():
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        assert path.stem not in {"utils", "helpers", "manager"}, path
        if text.strip() and "migrations" not in path.parts:
            assert ast.get_docstring(ast.parse(text)), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "tables"),
    [
        ("--only queries --rounds 3", 3),
        ("--only rtt --rtt-rounds 3 --setup dbresilience", 2),
        ("--only turns --turn-rounds 1 --turn-seconds 0.5 --setup dbresilience", 2),
        ("--only outages --outage-rounds 1 --short-seconds 2 --away-seconds 2 --setup dbresilience", 2),
    ],
)
def test_the_benchmarks_run(var: Path, arguments: str, tables: int) -> None:
    """Few rounds of everything: a table for each kind of request, a line for each set-up."""
    var.chmod(0o755)  # PgBouncer runs as the user that PostgreSQL runs as
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments.split()],
        cwd=BASE_DIR,
        env=site_environment(VAR_DIR=str(var)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("| dbresilience |") == tables


@pytest.mark.slow
def test_an_outage_is_drawn(tmp_path: Path) -> None:
    """`make outage` leaves a picture, and a page that needs nothing beside it."""
    pytest.importorskip("matplotlib")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.outage", "--away-seconds=2", "--after-seconds=2", f"--images={tmp_path}"],
        cwd=BASE_DIR,
        env=site_environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "503" in done.stdout
    assert (tmp_path / "outage.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "outage.html").read_text()
    assert not re.findall(r"(?:src|href)=[\"'](?!#)[^\"']*", page)
