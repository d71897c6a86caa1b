"""The site starts with what it needs, and otherwise says in one line what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.settings import BASE_DIR
from tests.support.ports import free_port
from tests.support.site import site_environment

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"

pytestmark = pytest.mark.slow


def run(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=BASE_DIR,
        env=site_environment(**env),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"SECRET_KEY": "x"}, "DATABASE_URL"),
        ({"SECRET_KEY": "", "DATABASE_URL": NOWHERE}, "SECRET_KEY"),
        ({"SECRET_KEY": "x", "DATABASE_URL": NOWHERE, "CHAT_AGENT": "oracle"}, "CHAT_AGENT"),
        ({"SECRET_KEY": "x", "DATABASE_URL": NOWHERE, "CHAT_AGENT": "openai"}, "OPENAI_API_KEY"),
        ({"SECRET_KEY": "x", "DATABASE_URL": "nonsense"}, "DATABASE_URL"),
        ({"SECRET_KEY": "x", "DATABASE_URL": "mysql://nobody@127.0.0.1/nothing"}, "DATABASE_URL"),
        ({"SECRET_KEY": "x", "DATABASE_URL": NOWHERE, "CHAT_RETENTION_DAYS": "many"}, "CHAT_RETENTION_DAYS"),
    ],
)
def test_a_missing_setting_is_one_clear_line(env: dict[str, str], names: str) -> None:
    """No traceback: the line names the variable and what to do."""
    done = run("manage.py", "migrate", **env)
    assert done.returncode != 0
    assert names in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_gunicorn_gives_up_when_a_setting_is_missing() -> None:
    """The master does not start workers again and again that can never boot."""
    done = run("-m", "gunicorn", "-c", "config/gunicorn.conf.py", PORT=str(free_port()))
    assert done.returncode != 0
    assert "DATABASE_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_worker_class_is_refused() -> None:
    """A misspelled worker class names the two there are."""
    done = run("-m", "gunicorn", "-c", "config/gunicorn.conf.py", WEB_WORKER_CLASS="threads")
    assert done.returncode != 0
    assert "'gthread' or 'asgi'" in done.stderr


def test_production_settings_pass_djangos_checks(var: Path) -> None:
    """With https origins the cookies are secure; `collectstatic` gives hashed names."""
    env = {
        "DATABASE_URL": NOWHERE,
        "VAR_DIR": str(var),
        "CSRF_TRUSTED_ORIGINS": "https://chat.example.org",
        "SECRET_KEY": "k" * 30 + "0123456789abcdefghijklmnopqrst",
    }
    assert run("manage.py", "collectstatic", "--no-input", **env).returncode == 0
    assert (var / "static" / "staticfiles.json").exists()
    question = "from django.conf import settings as s; print(s.SESSION_COOKIE_SECURE, s.DEBUG, s.COLLECTED)"
    assert run("manage.py", "shell", "--no-imports", "-c", question, **env).stdout.split() == ["True", "False", "True"]
    assert run("manage.py", "check", "--fail-level", "ERROR", **env).returncode == 0


def test_commands_that_need_no_database_start_none(var: Path) -> None:
    """`manage.py check` and help do not pay for a server."""
    for command in (["check"], ["help"], ["migrate", "--help"], []):
        assert run("manage.py", *command, DEBUG="1", VAR_DIR=str(var)).returncode == 0
    assert not (var / "postgres").exists()


def test_development_key_is_kept(var: Path) -> None:
    """Sessions survive a restart: every start of a checkout has the same key, and nobody else may read it."""
    keys = {
        run(
            "-c",
            f"import pathlib, config.startup as s; print(s.development_secret_key(pathlib.Path('{var}/key')))",
        ).stdout
        for _ in range(2)
    }
    assert len(keys) == 1
    assert len(keys.pop().strip()) > 50
    assert (var / "key").stat().st_mode & 0o077 == 0
