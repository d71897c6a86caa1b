"""An engine composed with ResilienceMixin has what ours has; both say that the app is missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.places import BASE_DIR
from tests.support.ports import free_port

COMPOSED = """
from django.db.backends.postgresql import base
from dbresilience.wrapper import ResilienceMixin

class DatabaseWrapper(ResilienceMixin, base.DatabaseWrapper):
    pass
"""


@pytest.fixture
def composed(tmp_path: Path) -> dict[str, str]:
    """The environment of a project with an engine of its own, as for PostGIS: `composed_engine`."""
    (tmp_path / "composed_engine").mkdir()
    (tmp_path / "composed_engine" / "__init__.py").touch()
    (tmp_path / "composed_engine" / "base.py").write_text(COMPOSED)
    return os.environ | {"PYTHONPATH": f"{BASE_DIR}{os.pathsep}{tmp_path}"}


@pytest.mark.parametrize("engine", ["dbresilience", "composed_engine"])
@pytest.mark.parametrize(
    ("installed", "deploy", "said"), [([], True, True), ([], False, False), (["dbresilience"], True, False)]
)
def test_the_engine_without_its_app(
    composed: dict[str, str], engine: str, installed: list[str], deploy: bool, said: bool
) -> None:
    """Whoever changed ENGINE only, which is enough, is told by `manage.py check --deploy` what is missing."""
    program = f"""
from django.conf import settings
settings.configure(
    DATABASES={{"default": {{"ENGINE": "{engine}", "NAME": "x"}}}},
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", *{installed}],
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
)
import django; django.setup()
from django.core.management import call_command
call_command("check", deploy={deploy})
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, env=composed, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert ("(dbresilience.W025) The engine is in use" in done.stderr) == said


def test_a_composed_engine_answers_as_ours_does(composed: dict[str, str]) -> None:
    """Without the app, too: 503, lines in the log, and a deadline of each request."""
    program = f"""
from django.conf import settings
settings.configure(
    DATABASES={{"default": {{"ENGINE": "composed_engine", "NAME": "x", "HOST": "127.0.0.1",
                           "PORT": "{free_port()}"}}}},
    INSTALLED_APPS=[], ROOT_URLCONF="__main__", ALLOWED_HOSTS=["*"],
)
import django; django.setup()
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.urls import path
from dbresilience import deadlines

def view(request):
    print("allowance", deadlines.current_allowance() is not None)
    connection.cursor().execute("SELECT 1")

urlpatterns = [path("", view)]
connection.vendor  # Django imports the engine
print("answered", Client().get("/").status_code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, env=composed, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split("\n")[:2] == ["allowance True", "answered 503"], done.stderr
    assert "pool default cannot connect after " in done.stderr
