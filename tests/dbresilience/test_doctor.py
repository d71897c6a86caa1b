"""`manage.py dbresilience doctor` on real servers: broken configurations, and what it says of each."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command

from dbresilience.capacity import Processes, declared_processes
from dbresilience.doctor import Examination, consult
from dbresilience.findings import SEVERITIES, Finding
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import ThrowawayPostgres

from .conftest import MakeWrapper
from .pasting import paste

ONE = Processes(1, 1, "a test")


def finding(seen: Examination, name: str) -> Finding:
    (found,) = (each for each in seen.findings if each.name == name)
    return found


def of_database(url: str) -> str:
    return url.rpartition("/")[2]


def test_a_sound_configuration_has_nothing_wrong(make_wrapper: MakeWrapper, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 0, and every figure that was looked at."""
    alias = make_wrapper().alias
    call_command("dbresilience", "doctor", "--database", alias)
    said = capsys.readouterr().out
    assert "Nothing is wrong. 0 errors, 0 warnings" in said
    assert "1 web process + 1 other (WEB_CONCURRENCY is not set; --processes N for all machines" in said
    assert "100 slots − 3 reserved" in said


def test_too_few_slots_for_all_processes_and_the_worker(
    make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """WEB_CONCURRENCY and one worker, times max_size; what is pasted fits."""
    alias = make_wrapper(pool={"max_size": 20}).alias
    monkeypatch.setenv("WEB_CONCURRENCY", "8")
    with pytest.raises(CommandError) as caught:
        call_command("dbresilience", "doctor", "--json", "--database", alias)
    assert caught.value.returncode == 1
    seen = json.loads(capsys.readouterr().out)
    worst = seen["findings"][0]
    assert (worst["severity"], worst["name"]) == ("error", "slots")
    assert "8 web processes + 1 other with 20 connections each, and 8 for probes, are 188" in worst["found"]
    assert seen["processes"]["source"].startswith("WEB_CONCURRENCY, of this machine")
    size = paste(worst["set"])[alias]["pool"]["max_size"]
    assert size == (97 - 10 - 2 * 8) // (2 * 9)
    small = make_wrapper(pool={"max_size": size})
    assert finding(consult(small.alias, declared_processes()), "slots").severity == "fine"


def test_the_worker_alone_may_be_too_much(make_wrapper: MakeWrapper) -> None:
    """Enough while nothing is rolled out is a warning; the processes are those that are given."""
    alias = make_wrapper(pool={"max_size": 24}).alias
    assert finding(consult(alias, Processes(1, 0, "")), "slots").severity == "fine"
    assert finding(consult(alias, Processes(1, 1, "")), "slots").severity == "warning"
    assert finding(consult(alias, Processes(3, 1, "")), "slots").severity == "error"


@pytest.mark.slow
def test_reserved_slots_are_not_ours(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """superuser_reserved_connections and reserved_connections; where no pool is small enough the server must grow."""
    alias = make_wrapper(pool={"max_size": 20}).alias
    with postgres.restarted_with(superuser_reserved_connections="60", reserved_connections="20"):
        found = finding(consult(alias, ONE), "slots")
        assert found.severity == "error"
        assert "100 slots − 80 reserved" in found.found
        assert "max_size" in found.set
        many = finding(consult(alias, Processes(8, 1, "")), "slots")
        assert re.search(r"ALTER SYSTEM SET max_connections = \d+;", many.set)


def test_what_others_use_and_what_a_role_may_have(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """Other databases' sessions are taken off; a limit of the database counts."""
    name = of_database(database_url)
    alias = make_wrapper().alias
    with ExitStack() as stack:
        for _ in range(90):
            stack.enter_context(psycopg.connect(postgres.url()))
        seen = consult(alias, ONE)
        assert "100 slots − 3 reserved − 90 in use by others = 7" in finding(seen, "slots").found
        assert finding(seen, "slots").severity == "error"
        assert finding(seen, "slots_now").severity == "warning"
    postgres.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 12')
    limited = finding(consult(alias, ONE), "slots")
    assert limited.severity == "error"
    assert "limited to 12" in limited.found
    assert "CONNECTION LIMIT 52" in limited.set


def test_times_that_contradict_each_other(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """The server's against ours: what is pasted ends the finding."""
    name = of_database(database_url)
    for setting in (
        "statement_timeout = '2min'", "lock_timeout = '3min'", "transaction_timeout = '1min'",
        "idle_session_timeout = '30s'", "idle_in_transaction_session_timeout = '1s'",
    ):  # fmt: skip
        postgres.execute(f'ALTER DATABASE "{name}" SET {setting}')
    alias = make_wrapper().alias
    seen = consult(alias, ONE)
    wrong = {each.name for each in seen.findings if each.severity == "warning"}
    assert wrong == {
        "statement_timeout", "lock_timeout", "transaction_timeout", "idle_session_timeout",
        "idle_in_transaction_session_timeout",
    }  # fmt: skip
    assert "idle for 30 s, and the pool keeps them for 600 s" in finding(seen, "idle_session_timeout").found
    options: dict[str, Any] = {}
    for each in ("statement_timeout", "idle_session_timeout"):
        options |= paste(finding(seen, each).set)[alias]
    mended = consult(make_wrapper(**options).alias, ONE)
    assert finding(mended, "statement_timeout").severity == "fine"
    assert finding(mended, "idle_session_timeout").severity == "fine"
    kept = consult(make_wrapper(pool={"min_size": 2}).alias, ONE)
    assert "2 (min_size) for ever" in finding(kept, "idle_session_timeout").found


@pytest.mark.slow
def test_a_pooler_in_transaction_mode_is_found_and_what_breaks_there(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """By its behaviour, on any port: each feature that needs a session is named."""
    with pgbouncer(postgres, postgres.port) as port:
        url = database_url.replace(f":{postgres.port}/", f":{port}/")
        seen = consult(
            make_wrapper(url=url, prepare_threshold=5, statement_timeout_seconds=5).alias, Processes(50, 1, "")
        )
        assert "transaction mode" in finding(seen, "pooler").found
        assert {each.name for each in seen.findings if each.severity != "fine"} == {
            "dbresilience.W004", "dbresilience.W005", "dbresilience.W007",
        }  # fmt: skip
        assert "max_client_conn" in finding(seen, "slots").found
        sound = make_wrapper(url=url)
        sound.settings_dict["DISABLE_SERVER_SIDE_CURSORS"] = True
        assert consult(sound.alias, ONE).is_well
    assert finding(consult(make_wrapper().alias, ONE), "pooler").found == "None in front."


def test_mistakes_of_the_settings_are_among_the_findings(make_wrapper: MakeWrapper, settings: Any) -> None:
    """Those of the system checks, unless they are silenced; CONN_MAX_AGE stops at once."""
    wrapper = make_wrapper(pool={"timeout": 90})
    assert {each.name for each in consult(wrapper.alias, ONE).findings if each.severity != "fine"} == {
        "dbresilience.W008", "dbresilience.W009",
    }  # fmt: skip
    settings.SILENCED_SYSTEM_CHECKS = ["dbresilience.W008", "dbresilience.W009"]
    assert consult(wrapper.alias, ONE).is_well
    aged = make_wrapper()
    aged.settings_dict["CONN_MAX_AGE"] = 60
    aged._resources = None
    aged.settings_dict["OPTIONS"]["application_name"] = "aged"
    with pytest.raises(ImproperlyConfigured):
        consult(aged.alias, ONE)
    with pytest.raises(CommandError, match="CONN_MAX_AGE") as caught:
        call_command("dbresilience", "doctor", "--database", aged.alias)
    assert caught.value.returncode == 2
    aged.settings_dict["CONN_MAX_AGE"] = 0


def test_a_pool_that_is_off_is_not_counted(make_wrapper: MakeWrapper) -> None:
    """No size, so nothing to add up."""
    assert "No pool" in finding(consult(make_wrapper(pool=False).alias, Processes(99, 1, "")), "slots").found


def test_without_a_pool_the_slots_that_are_left_are_those_that_nobody_has(
    make_wrapper: MakeWrapper, database_url: str, postgres: ThrowawayPostgres
) -> None:
    """Neither another user's sessions nor those of the threads at work."""
    with ExitStack() as stack:
        for url in (database_url, database_url, postgres.url("postgres")):
            stack.enter_context(psycopg.connect(url))
        found = finding(consult(make_wrapper(pool=False).alias, ONE), "slots").found
    assert found == "No pool: each thread has a connection of its own, 94 are left."


@pytest.mark.parametrize(
    ("change", "state", "says"),
    [
        (lambda url: url.replace("postgres@", "walled:wrong@"), "credentials", "Correct USER and PASSWORD"),
        (lambda url: url.rpartition("/")[0] + "/nowhere", "not_transient", "Correct NAME"),
        (lambda url: re.sub(r":\d+/", ":1/", url), "cannot_connect", "Start PostgreSQL"),
    ],
    ids=["wrong password", "no such database", "nothing listens"],
)
def test_a_server_that_cannot_be_asked(
    make_wrapper: MakeWrapper,
    postgres: ThrowawayPostgres,
    database_url: str,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[str], str],
    state: str,
    says: str,
) -> None:
    """Exit code 3, why, what to do, and the mistakes that the settings show all the same; no secret and no host."""
    postgres.execute("DROP ROLE IF EXISTS walled")
    postgres.create_role("walled", "right")
    alias = make_wrapper(url=change(database_url), pool={"timeout": 40}).alias
    with pytest.raises(CommandError, match="cannot be reached") as caught:
        call_command("dbresilience", "doctor", "--database", alias, "--json")
    assert caught.value.returncode == 3
    out = capsys.readouterr().out
    seen = json.loads(out)
    assert (seen["reached"], seen["server"], seen["order"]) == (False, None, "doctor")
    assert seen["findings"][0]["name"] == "connection"
    assert f"({state})" in seen["findings"][0]["found"]
    assert says in seen["findings"][0]["set"]
    assert [each["name"] for each in seen["findings"][1:]] == ["dbresilience.W009"]
    assert "127.0.0.1" not in out
    assert "wrong" not in out


@pytest.mark.slow
def test_a_full_server_and_a_frozen_one(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full for who is no superuser; frozen within the time-outs."""
    postgres.execute("DROP ROLE IF EXISTS plain")
    postgres.execute("CREATE ROLE plain LOGIN CONNECTION LIMIT 0")
    url = postgres.url().replace("postgres@", "plain@")
    found = finding(consult(make_wrapper(url=url).alias, ONE), "connection")
    assert "(server_full)" in found.found
    postgres.execute("DROP ROLE plain")
    postgres.freeze()
    seen = consult(make_wrapper(connect_timeout=2).alias, ONE)
    postgres.thaw()
    assert (seen.reached, finding(seen, "connection").severity) == (False, "error")


def test_findings_come_worst_first(make_wrapper: MakeWrapper) -> None:
    """So that the first line is the one to act on."""
    seen = consult(make_wrapper(pool={"max_size": 60, "timeout": 40}).alias, Processes(3, 1, ""))
    order = [SEVERITIES.index(each.severity) for each in seen.findings]
    assert order == sorted(order)
    assert set(order) == {0, 1, 2}
