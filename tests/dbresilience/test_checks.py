"""dbresilience/checks: each mistake is found with its numbers and its fix, and what is right is left alone."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.db import connections
from psycopg_pool import ConnectionPool

from dbresilience.checks import CHECKS, SETTINGS_CHECKS
from tests.places import BASE_DIR
from tests.support.site import site_environment

from .pasting import paste

POOLER = {"PORT": "6432"}
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJleHAiOjF9.c2ln"
RDS = "db.example.org:5432/?Action=connect&DBUser=x&X-Amz-Signature=0123456789"
NEON = "ep-blue-1.eu-central-1.aws.neon.tech"


def options(**given: Any) -> dict[str, Any]:
    return {"OPTIONS": given}


def resilience(**given: Any) -> dict[str, Any]:
    return options(resilience=given)


def pool(**given: Any) -> dict[str, Any]:
    return options(pool=given)


# id, what is wrong, what is right beside it, and what the message must say.
CASES: list[tuple[str, dict[str, Any], dict[str, Any], str]] = [
    ("E001", {"CONN_MAX_AGE": 60}, {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True, **options(pool=False)}, "60"),
    ("E001", {"CONN_MAX_AGE": None}, {"CONN_MAX_AGE": 0}, "None"),
    ("E003", {"AUTOCOMMIT": "false"}, {"AUTOCOMMIT": False}, "'false'"),
    ("E003", {"CONN_HEALTH_CHECKS": "true"}, {"CONN_HEALTH_CHECKS": True}, "'true'"),
    ("E003", options(prepare_threshold="None"), options(prepare_threshold=None), "'None'"),
    ("W002", {"pool": {"max_size": 4}}, pool(max_size=4), "'pool'"),
    ("W002", {"POOL_OPTIONS": {"POOL_SIZE": 4}}, {"TEST": {}}, "POOL_OPTIONS"),
    ("W002", {"pool_max_size": 4}, options(pool_max_size=4), "pool_max_size"),
    ("W001", options(password_file="/nowhere/x"), {}, "password_file"),
    ("W003", {"PASSWORD": RDS}, {"PASSWORD": "eye-catching"}, "PASSWORD is a token"),
    ("W003", {"PASSWORD": JWT}, {"PASSWORD": ""}, "PASSWORD is a token"),
    ("W004", POOLER, {**POOLER, "DISABLE_SERVER_SIDE_CURSORS": True}, "6432"),
    ("W004", {"PORT": "6543"}, {"PORT": "5433"}, "Supabase"),
    ("W007", {**POOLER, "DISABLE_SERVER_SIDE_CURSORS": True, **resilience(statement_timeout_seconds=5)},
     resilience(statement_timeout_seconds=5), "statement_timeout_seconds is 5"),
    ("W007", {**POOLER, "DISABLE_SERVER_SIDE_CURSORS": True, **options(assume_role="tenant")},
     options(assume_role="tenant"), "'tenant'"),
    ("W005", {**POOLER, "DISABLE_SERVER_SIDE_CURSORS": True, **options(prepare_threshold=5)},
     options(prepare_threshold=5), "is 5"),
    ("W006", {**POOLER, "DISABLE_SERVER_SIDE_CURSORS": True, **options(options="-c search_path=x")},
     options(options="-c search_path=x"), "unsupported startup parameter"),
    ("W008", options(pool={"timeout": 10}, resilience={"deadline_seconds": 5}),
     options(pool={"timeout": 3}, resilience={"deadline_seconds": 5}), "10 s for a connection"),
    ("W008", resilience(deadline_seconds=10), resilience(deadline_seconds=None), "10 s for the"),
    ("W009", pool(timeout=30), pool(timeout=29), "30 s"),
    ("W010", resilience(statement_timeout_seconds=60), resilience(statement_timeout_seconds=59), "is 60"),
    ("W011", {"HOST": "a.example,b.example", **options(target_session_attrs="primary", sslmode="require",
                                                      deadline_seconds=15, connect_timeout=20, pool_timeout=3)},
     {"HOST": "a.example,b.example", **options(target_session_attrs="primary", sslmode="require",
                                              deadline_seconds=15, connect_timeout=3, pool_timeout=3)}, "after 20 s"),
    ("W013", {"HOST": "a.example,b.example", **options(sslmode="require")},
     {"HOST": "a.example,b.example", **options(sslmode="require", load_balance_hosts="random")}, "2 hosts"),
    ("W014", {"HOST": "a.example", **options(keepalives=0, sslmode="require")},
     {"HOST": "127.0.0.1", **options(keepalives=0)}, "'keepalives'"),
    ("W015", {"HOST": NEON, **options(sslmode="require", pool={"min_size": 2})},
     {"HOST": NEON, **options(sslmode="require", pool={"min_size": 0})}, "min_size is 2"),
    ("W016", {"HOST": "db.example.org"}, {"HOST": "db.example.org", **options(sslmode="verify-full")}, "'prefer'"),
    ("W016", {"HOST": "10.0.0.5", **options(sslmode="allow")}, {"HOST": "/run/postgresql"}, "'allow'"),
    ("W017", {"CONN_MAX_AGE": 60, **options(pool=False)},
     {"CONN_MAX_AGE": 60, "CONN_HEALTH_CHECKS": True, **options(pool=False)}, "60"),
    ("W018", {"ATOMIC_REQUESTS": True}, {"ATOMIC_REQUESTS": True, **resilience(lease="request")}, "10 such requests"),
    ("W020", pool(check=ConnectionPool.check_connection), pool(check=print), "check_connection"),
    ("W023", resilience(slow_query_parameters=True), resilience(slow_query_parameters=False), "slow_query_parameters"),
]  # fmt: skip


def found() -> list[CheckMessage]:
    """What all of our checks say, those for `--deploy` included; no database is asked."""
    return [each for each in run_checks(include_deployment_checks=True) if str(each.id).startswith("dbresilience.")]


def ids() -> set[str]:
    return {str(each.id).removeprefix("dbresilience.") for each in found()}


@pytest.fixture
def configure(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """`configure({"CONN_MAX_AGE": 60})` changes the default alias for the test."""

    def change(given: dict[str, Any], alias: str = "default") -> None:
        for name, value in given.items():
            monkeypatch.setitem(settings.DATABASES[alias], name, value)

    monkeypatch.delenv("GUNICORN_CMD_ARGS", raising=False)
    # The ways the chat differs from a project that names its engine and nothing else.
    change({"OPTIONS": {}})
    return change


def test_the_sites_own_settings_are_silent(configure: Any) -> None:
    """Nothing is said of what is right."""
    assert found() == []


@pytest.mark.parametrize(
    ("identity", "wrong", "right", "says"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_what_is_wrong_is_found(
    configure: Any, identity: str, wrong: dict[str, Any], right: dict[str, Any], says: str
) -> None:
    """One message of one id, with its figures and a fix."""
    configure(wrong)
    (message,) = found()
    assert message.id == f"dbresilience.{identity}"
    assert says in message.msg
    assert message.hint
    assert "DATABASES['default']" in f"{message.msg} {message.hint}"
    assert bool(paste(str(message.hint))) == ('"OPTIONS": ' in str(message.hint))
    assert not str(message.hint).endswith(".") or identity == "W001"
    assert not any(secret in f"{message.msg} {message.hint}" for secret in (JWT, RDS, "a.example,"))


@pytest.mark.parametrize(
    ("identity", "wrong", "right", "says"), CASES, ids=[f"{c[0]}-{n}" for n, c in enumerate(CASES)]
)
def test_what_is_right_is_left_alone(
    configure: Any, identity: str, wrong: dict[str, Any], right: dict[str, Any], says: str
) -> None:
    """The same setting with a value that makes sense."""
    configure(right)
    assert ids() == set()


@pytest.mark.parametrize(
    ("given", "says", "hint"),
    [
        ({"CONN_MAX_AGE": "60"}, "where a number", '"CONN_MAX_AGE": 0 in'),
        ({"CONN_MAX_AGE": "0"}, "where a number", '"CONN_MAX_AGE": 0 in'),
        ({"CONN_MAX_AGE": "none"}, "where a number", '"CONN_MAX_AGE": 0 in'),
        ({"CONN_MAX_AGE": "60", **options(pool=False)}, "where a number", '"CONN_MAX_AGE": 60 in'),
        ({"CONN_MAX_AGE": "0", **options(pool=False)}, "where a number", '"CONN_MAX_AGE": 0 in'),
        ({"CONN_MAX_AGE": "", **options(pool=False)}, "where a number", '"CONN_MAX_AGE": 0 in'),
        ({"CONN_MAX_AGE": "soon", **options(pool=False)}, "where a number", '"CONN_MAX_AGE": 0 in'),
        ({"CONN_MAX_AGE": "None", **options(pool=False)}, "where a number", '"CONN_MAX_AGE": None in'),
        ({"CONN_HEALTH_CHECKS": "1"}, "counts as true", '"CONN_HEALTH_CHECKS": True in'),
        ({"CONN_HEALTH_CHECKS": "on"}, "counts as true", '"CONN_HEALTH_CHECKS": True in'),
        ({"CONN_HEALTH_CHECKS": "off"}, "counts as true", '"CONN_HEALTH_CHECKS": False in'),
        ({"CONN_HEALTH_CHECKS": ""}, "counts as false", '"CONN_HEALTH_CHECKS": False in'),
        ({"AUTOCOMMIT": "perhaps"}, "counts as true", '"AUTOCOMMIT": True in'),
        (options(prepare_threshold="5"), "where a number or None", '{"prepare_threshold": 5} in'),
        (options(prepare_threshold="true"), "where a number or None", '{"prepare_threshold": None} in'),
        (options(server_side_binding="true"), "counts as false", '{"server_side_binding": True} in'),
    ],
)
def test_a_text_is_read_as_what_is_meant(configure: Any, given: dict[str, Any], says: str, hint: str) -> None:
    """One message: what becomes of the text, and the value to write; with a pool no age."""
    configure(given)
    (message,) = found()
    assert message.id == "dbresilience.E003"
    assert says in message.msg
    assert hint in str(message.hint)


def test_another_engine_does_not_know_our_options(configure: Any, settings: Any) -> None:
    """Also those that may stand in a URL; Django's own pool keeps its own."""
    other = {**settings.DATABASES["default"], "ENGINE": "django.db.backends.postgresql", "HOST": "127.0.0.1"}
    for given, expected in (
        ({"resilience": {}}, {"E002"}), ({"pool_max_size": 3}, {"E002"}), ({"pool": {"max_size": 3}}, set()),
        ({"connect_timeout": 3}, set()),
    ):  # fmt: skip
        settings.DATABASES["other"] = {**other, "OPTIONS": given}
        try:
            assert ids() == expected
        finally:
            del connections["other"]
            del settings.DATABASES["other"]


def test_kept_connections_of_another_backend(configure: Any, settings: Any) -> None:
    """Django's own backend with an age and without a look."""
    other = {**settings.DATABASES["default"], "ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 600}
    for checked, expected in ((False, {"W017"}), (True, set())):
        settings.DATABASES["other"] = {**other, "CONN_HEALTH_CHECKS": checked}
        try:
            assert ids() == expected
        finally:
            del connections["other"]
            del settings.DATABASES["other"]


def test_two_pools_for_one_database(configure: Any, settings: Any) -> None:
    """The sum is said; another database, another user and a reader are none."""
    same = {**settings.DATABASES["default"]}
    for change, expected in (
        ({}, {"W021"}), ({"NAME": "another"}, set()), ({"USER": "another"}, set()),
        (options(target_session_attrs="prefer-standby"), set()), (options(pool=False), set()),
        ({"TEST": {"MIRROR": "default"}}, set()),
    ):  # fmt: skip
        settings.DATABASES["other"] = {**same, **change}
        try:
            messages = found()
        finally:
            del connections["other"]
            del settings.DATABASES["other"]
        assert {str(each.id).removeprefix("dbresilience.") for each in messages} == expected
        assert not messages or "10 + 10 = 20 connections" in messages[0].msg


def test_a_lease_for_requests_under_asgi(configure: Any, settings: Any) -> None:
    """Where a request may never say that it is over."""
    configure(resilience(lease="request"))
    assert ids() == set()
    settings.ASGI_APPLICATION = "config.asgi.application"
    assert ids() == {"W019"}
    configure(resilience(lease="transaction"))
    assert ids() == set()


def test_probes_behind_other_middleware(configure: Any, settings: Any) -> None:
    """What is Django's may answer instead; what measures may come first; nobody must have the probes."""
    ours = "dbresilience.middleware.ProbeMiddleware"
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware", ours]
    assert ids() == {"W022"}
    settings.MIDDLEWARE = ["django_prometheus.middleware.PrometheusBeforeMiddleware", ours]
    assert ids() == set()
    settings.MIDDLEWARE = ["django.middleware.security.SecurityMiddleware"]
    assert ids() == set()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("--timeout 30", {"W012"}), ("--workers 2 --timeout=60", {"W012"}), ("-t 30 -w 2", {"W012"}),
     ("--timeout 90", set()), ("--timeout 0", set()), ("--graceful-timeout 5", set()), ("", set())],
)  # fmt: skip
def test_gunicorns_timeout(configure: Any, monkeypatch: pytest.MonkeyPatch, arguments: str, expected: set[str]) -> None:
    """As far as the environment tells it."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", arguments)
    assert ids() == expected


def test_libpqs_environment_counts(configure: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGSSLMODE and PGTARGETSESSIONATTRS say as much as OPTIONS do."""
    configure({"HOST": "a.example,b.example"})
    assert ids() == {"W013", "W016"}
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGTARGETSESSIONATTRS", "read-write")
    assert ids() == set()


def test_every_check_is_tried(configure: Any) -> None:
    """Each id once, in the reference, with a test of both ways here or beside its subject."""
    identities = [each.id for each in CHECKS]
    assert len(identities) == len(set(identities))
    beside = ("test_checks.py", "test_doctor.py", "test_composed_engine.py")
    tried = "".join((Path(__file__).parent / name).read_text() for name in beside)
    assert {each.removeprefix("dbresilience.") for each in identities} == set(re.findall(r"\b[EW]0\d\d\b", tried))
    assert all(each.__doc__ for each in CHECKS)
    assert {each.id for each in CHECKS} - {each.id for each in SETTINGS_CHECKS} == {"dbresilience.W024"}


@pytest.mark.slow
@pytest.mark.parametrize("asked", [["check"], ["check", "--deploy"]])
def test_the_command_is_silent_about_us(asked: list[str], tmp_path: Path) -> None:
    """`manage.py check` of this repository, in production too."""
    env = site_environment(DATABASE_URL="postgresql://u:p@127.0.0.1/x", CSRF_TRUSTED_ORIGINS="https://chat.example.org")
    done = subprocess.run(
        [sys.executable, "manage.py", *asked], cwd=BASE_DIR, env=env | {"VAR_DIR": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "dbresilience." not in done.stderr + done.stdout
