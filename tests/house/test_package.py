"""The package that `pip install .` gives to other projects: dbresilience, all of it, and nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.settings import BASE_DIR

pytestmark = pytest.mark.slow

NOT_IN_THE_PACKAGE = shutil.ignore_patterns("var", ".*", "__pycache__", "build", "*.egg-info")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names in the wheel. Built from a copy, because setuptools leaves its drafts beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(BASE_DIR, folder / "source", ignore=NOT_IN_THE_PACKAGE)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder)]
    done = subprocess.run([*command, str(folder / "source")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("dbresilience-*.whl")
    return set(zipfile.ZipFile(built).namelist())


def test_the_wheel_holds_the_package_alone(wheel: set[str]) -> None:
    """No chat, no configuration, no tests."""
    assert {Path(name).parts[0].split("-")[0] for name in wheel} == {"dbresilience"}


def test_the_wheel_holds_every_file_of_the_package(wheel: set[str]) -> None:
    """Modules, templates, static files, and the marker that it is typed."""
    package = BASE_DIR / "dbresilience"
    files = (path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    wanted = {path.relative_to(BASE_DIR).as_posix() for path in files}
    assert "dbresilience/py.typed" in wanted
    assert any(name.endswith(".html") for name in wanted)
    assert wanted <= wheel
