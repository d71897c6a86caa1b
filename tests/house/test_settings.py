"""The site starts with what it needs, and otherwise says in one line what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from config.startup import url_database
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


COMPLETE = {"SECRET_KEY": "x", "DATABASE_URL": NOWHERE}


@pytest.mark.parametrize(
    ("env", "names"),
    [
        ({"SECRET_KEY": "x"}, "DATABASE_URL"),
        ({"SECRET_KEY": "", "DATABASE_URL": NOWHERE}, "SECRET_KEY"),
        ({**COMPLETE, "CHAT_AGENT": "openai"}, "OPENAI_API_KEY"),
        ({"SECRET_KEY": "x", "DATABASE_URL": "nonsense"}, "DATABASE_URL"),
        ({"SECRET_KEY": "x", "DATABASE_URL": "mysql://nobody@127.0.0.1/nothing"}, "DATABASE_URL"),
    ],
)
def test_a_missing_setting_is_one_clear_line(env: dict[str, str], names: str) -> None:
    """No traceback: the line names the variable and what to do."""
    done = run("manage.py", "migrate", **env)
    assert done.returncode != 0
    assert names in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DEBUG", "perhaps"),
        ("DATABASE_ENGINE", "dbresilient"),
        ("DATABASE_ENGINE", "django.db.backends.sqlite3"),
        ("ALLOWED_HOSTS", "https://chat.example.org"),
        ("ALLOWED_HOSTS", "chat.example.org:8000"),
        ("CSRF_TRUSTED_ORIGINS", "chat.example.org"),
        ("PORT", "70000"),
        ("WEB_WORKER_CLASS", "threads"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_CONCURRENCY", ""),
        ("WEB_THREADS", "many"),
        ("WEB_GRACE_SECONDS", "-1"),
        ("METRICS_ACCESS", "public"),
        ("METRICS_ACCESS", "token:"),
        ("CHAT_AGENT", "oracle"),
        ("CHAT_AGENT_DELAY_SECONDS", "-0.5"),
        ("CHAT_AGENT_DELAY_SECONDS", "nan"),
        ("OPENAI_BASE_URL", "models.example.org"),
        ("CHAT_RATE", "often"),
        ("CHAT_RATE", "300/month"),
        ("CHAT_TOKEN_RATE", "0/min"),
        # A negative number would delete every thread there is.
        ("CHAT_RETENTION_DAYS", "-1"),
        ("CHAT_RETENTION_DAYS", "0"),
        ("CHAT_RETENTION_DAYS", "1.5"),
    ],
)
def test_an_impossible_value_is_one_clear_line(name: str, value: str) -> None:
    """Every start is refused alike, whichever process would have used the setting."""
    done = run("-c", "import config.settings", **{**COMPLETE, name: value})
    assert done.returncode != 0
    assert done.stderr.startswith(f"{name} "), done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_what_is_empty_is_unset() -> None:
    """A variable that a template left empty means what a missing one means."""
    empty = dict.fromkeys(["DEBUG", "CHAT_RATE", "CHAT_RETENTION_DAYS", "WEB_THREADS", "OPENAI_BASE_URL"], "")
    question = "from config import serving, settings as s; print(s.DEBUG, s.CHAT_RETENTION_DAYS, serving.THREADS)"
    assert run("-c", question, **COMPLETE, **empty).stdout.split() == ["False", "None", "64"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me@/shop?host=/run/pg&pool_max_size=3",
        "postgresql://me@%2Frun%2Fpg/shop?pool_max_size=3",
        "postgresql:///shop?host=/run/pg&user=me&pool_max_size=3",
    ],
)
def test_a_url_may_name_a_unix_socket(url: str) -> None:
    """As libpq's own URLs do; in the entries that `manage.py dbshell` reads."""
    question = "from config.settings import DATABASES as d; e = d['default'];"
    question += "print(e['NAME'], e['USER'], e['HOST'], e['OPTIONS'])"
    options = "{'pool_max_size': 3, 'warm_up_with': 'chat.warming.ask_as_a_request_would'}"
    assert run("-c", question, SECRET_KEY="x", DATABASE_URL=url).stdout.strip() == f"shop me /run/pg {options}"


@pytest.mark.parametrize(
    ("hosts", "host", "port"),
    [
        ("h1:5432,h2:5433", "h1,h2", "5432,5433"),
        ("h1,h2", "h1,h2", ""),
        ("h1,h2:5433", "h1,h2", "5432,5433"),
        ("[::1]:5432,[fe80::2]:5433", "::1,fe80::2", "5432,5433"),
        ("%2Frun%2Fpg,h2", "/run/pg,h2", ""),
    ],
)
def test_a_url_may_name_several_hosts(hosts: str, host: str, port: str) -> None:
    """As libpq's own URLs do: one of them is the primary."""
    url = f"postgresql://me:p%40w@{hosts}/shop?target_session_attrs=read-write"
    entry = url_database(url, engine="dbresilience")
    assert (entry["HOST"], entry["PORT"], entry["NAME"]) == (host, port, "shop")
    assert (entry["USER"], entry["PASSWORD"]) == ("me", "p@w")
    assert entry["OPTIONS"] == {"target_session_attrs": "read-write"}


def test_several_hosts_may_stand_in_the_query() -> None:
    """libpq's other way; one port serves all."""
    entry = url_database("postgresql://me@/shop?host=h1,h2&port=5433", engine="dbresilience")
    assert (entry["HOST"], str(entry["PORT"])) == ("h1,h2", "5433")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql://me:secret@h1:x,h2/shop", "cannot be understood"),
        ("postgresql://me:secret@h1:1:2,h2/shop", "cannot be understood"),
        ("postgresql://me:secret@h1,,h2/shop", "empty host"),
        ("postgresql://me:secret@h1:0,h2/shop", "impossible port"),
        ("postgresql://me:secret@h1:70000,h2/shop", "impossible port"),
        ("postgresql://me:secret@/shop?host=h1,h2,h3&port=1,2", "3 hosts and 2 ports"),
        ("postgresql://me:secret@/shop?host=h1&port=1,2", "1 hosts and 2 ports"),
    ],
)
def test_nonsense_about_hosts_is_one_clear_line(url: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the variable, and shows neither hosts nor the password."""
    with pytest.raises(SystemExit):
        url_database(url, engine="dbresilience")
    said = capsys.readouterr().err
    assert said.startswith("DATABASE_URL "), said
    assert says in said
    assert len(said.strip().splitlines()) == 1
    assert "secret" not in said


def test_secrets_are_taken_as_they_stand() -> None:
    """A dollar sign refers to no other variable, and no refusal shows them."""
    question = "from config import settings; print(settings.SECRET_KEY)"
    assert run("-c", question, DATABASE_URL=NOWHERE, SECRET_KEY="$HOME").stdout.strip() == "$HOME"


def test_the_toolbar_is_refused_where_it_is_not_installed() -> None:
    """Asked for, it must be there; by default it is shown where it is installed."""
    without = "import sys; sys.modules['debug_toolbar'] = None\nimport importlib.util as u; real = u.find_spec\n"
    without += "u.find_spec = lambda name, *more: None if name == 'debug_toolbar' else real(name, *more)\n"
    question = f"{without}from config import settings; print(settings.DEBUG_TOOLBAR)"
    refused = run("-c", question, **COMPLETE, DEBUG_TOOLBAR="1")
    assert refused.returncode != 0
    assert refused.stderr.startswith("DEBUG_TOOLBAR "), refused.stderr
    assert run("-c", question, **COMPLETE, DEBUG="1").stdout.strip() == "False"


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_a_site_without_names_is_not_served(worker_class: str) -> None:
    """It would answer everything with 400. Migrations need no names."""
    nameless = {**COMPLETE, "ALLOWED_HOSTS": ""}
    env = {**nameless, "PORT": str(free_port()), "WEB_WORKER_CLASS": worker_class}
    done = run("-m", "gunicorn", "-c", "config/gunicorn.conf.py", **env)
    assert done.returncode != 0
    assert "ALLOWED_HOSTS is not set" in done.stderr
    assert "Traceback" not in done.stderr
    assert run("manage.py", "check", **nameless).returncode == 0


@pytest.mark.parametrize("word", ["1", "ok", "Yes", "t"])
def test_gunicorn_and_django_read_debug_alike(word: str) -> None:
    """What turns DEBUG on for one turns it on for the other."""
    question = "from config import serving, settings; print(serving.DEBUG, settings.DEBUG, serving.HOST)"
    done = run("-c", question, **COMPLETE, DEBUG=word, HOST="")
    assert done.stdout.split() == ["True", "True", "127.0.0.1"]


def test_gunicorn_gives_up_when_a_setting_is_missing() -> None:
    """The master does not start workers again and again that can never boot."""
    done = run("-m", "gunicorn", "-c", "config/gunicorn.conf.py", PORT=str(free_port()))
    assert done.returncode != 0
    assert "DATABASE_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


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


@pytest.mark.parametrize("entry_point", ["config.asgi", "config.wsgi"])
def test_nothing_is_left_to_import_for_the_first_request(entry_point: str) -> None:
    """On an event loop it would hold up everybody, `/livez` too."""
    asked = f"import sys, {entry_point}; print(sorted({{'config.urls', 'chat.api.turns'}} & set(sys.modules)))"
    done = run("-c", asked, **COMPLETE)
    assert done.stdout.strip() == "['chat.api.turns', 'config.urls']", done.stderr
