"""credentials.py: the password is read for each physical connection; it changes while the application runs."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.core.management import CommandError
from django.db import OperationalError, connections

from config.postgres import program
from dbresilience import dialling
from dbresilience.credentials import PasswordSource
from dbresilience.errors import DatabaseUnavailable, PasswordUnavailable, classify
from dbresilience.health import MEMORY_SECONDS
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import site_environment

from .conftest import MakeWrapper, in_thread, pid_of

SECRETS = ("first-secret", "second-secret")


class Vault:
    """A place where the password is kept: `vault.password` may be changed, `vault()` reads it."""

    def __init__(self, password: str) -> None:
        self.password = password
        self.reads = 0

    def __call__(self) -> str:
        self.reads += 1
        return self.password


vault = Vault(SECRETS[0])


@pytest.fixture
def role(postgres: ThrowawayPostgres) -> Iterator[str]:
    """A role that must give the first secret."""
    name = f"keeper_{os.urandom(4).hex()}"
    postgres.create_role(name, SECRETS[0])
    yield name
    postgres.execute(f"DROP ROLE {name}")


@pytest.fixture
def url(database_url: str, role: str) -> str:
    """The database of the test, as that role and without its password."""
    return database_url.replace("postgres@", f"{role}@")


@pytest.fixture
def change_password(postgres: ThrowawayPostgres, role: str) -> Callable[[str], None]:
    return lambda password: postgres.execute(f"ALTER ROLE {role} PASSWORD '{password}'") and None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = tmp_path / "password"
    found.write_text(f"{SECRETS[0]}\n")
    return found


@pytest.mark.parametrize("place", ["function", "dotted path", "file", "PASSWORD"])
def test_each_place_opens_the_door(
    make_wrapper: MakeWrapper, url: str, file: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function, the path to one, a file, and a function as PASSWORD."""
    monkeypatch.setitem(sys.modules, "shop_secrets", sys.modules[__name__])
    given: dict[str, Any] = {
        "function": {"resilience": {"password": Vault(SECRETS[0])}},
        "dotted path": {"resilience": {"password": "shop_secrets.vault"}},
        "file": {"password_file": str(file)},
        "PASSWORD": {},
    }[place]
    wrapper = make_wrapper(url=url, **given)
    if place == "PASSWORD":
        wrapper.settings_dict["PASSWORD"] = Vault(SECRETS[0])
    assert pid_of(wrapper)
    assert wrapper.resources.health().healthy


@pytest.mark.parametrize("pooled", [True, False], ids=["pool", "no pool"])
def test_it_is_read_for_each_connection(
    make_wrapper: MakeWrapper, url: str, postgres: ThrowawayPostgres, pooled: bool
) -> None:
    """Not once for the process."""
    keeper = Vault(SECRETS[0])
    wrapper = make_wrapper(url=url, pool=pooled, resilience={"password": keeper})
    for expected in (1, 2):
        assert pid_of(wrapper)
        assert keeper.reads == expected
        wrapper.close()
        wrapper.resources.close("the test wants another connection")


@pytest.mark.parametrize("pooled", [True, False], ids=["pool", "no pool"])
def test_a_refused_password_is_read_again_once(make_wrapper: MakeWrapper, url: str, pooled: bool) -> None:
    """What came too early or too late is not an error, if the second reading helps."""
    given = iter(["wrong", SECRETS[0]])
    wrapper = make_wrapper(url=url, pool=pooled, resilience={"password": lambda: next(given)})
    assert pid_of(wrapper)
    assert list(given) == []


@pytest.mark.parametrize("pool", [True, False])
def test_the_last_one_that_was_accepted_is_remembered(make_wrapper: MakeWrapper, url: str, pool: bool) -> None:
    """The function knows a password that the server does not know yet: the one of before is good still."""
    keeper = Vault(SECRETS[0])
    wrapper = make_wrapper(url=url, pool=pool, resilience={"password": keeper})
    first = pid_of(wrapper)
    wrapper.close()
    wrapper.resources.close("the test wants it")
    keeper.password = SECRETS[1]
    assert pid_of(wrapper) != first


def test_it_is_read_again_without_a_sqlstate(
    make_wrapper: MakeWrapper, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where libpq keeps the code to itself, it says at least that the server asked for a password."""
    monkeypatch.setattr(dialling, "_set_verbosity", lambda: None)
    given = iter(["wrong", SECRETS[0]])
    wrapper = make_wrapper(url=url, resilience={"password": lambda: next(given)})
    assert pid_of(wrapper)
    assert list(given) == []


def test_two_wrong_passwords_are_the_last_word(make_wrapper: MakeWrapper, url: str) -> None:
    """Not more than two attempts, and none with the same password again: servers lock accounts."""
    tried = []

    def read() -> str:
        tried.append(f"wrong {len(tried)}")
        return tried[-1]

    wrapper = make_wrapper(url=url, pool=False, resilience={"password": read})
    with pytest.raises(OperationalError) as caught:
        pid_of(wrapper)
    assert len(tried) == 2
    assert "wrong 1" not in str(caught.value)

    calls: list[str] = []
    source = PasswordSource("PASSWORD", lambda: "same")

    def refuse(password: str) -> None:
        calls.append(password)
        wrapper.get_new_connection({**wrapper.get_connection_params(), "password_source": None, "password": password})

    with pytest.raises(Exception, match="authentication failed"):
        source.connect(refuse)
    assert calls == ["same"]


def test_a_password_changes_under_load(
    make_wrapper: MakeWrapper,
    url: str,
    file: Path,
    postgres: ThrowawayPostgres,
    change_password: Callable[[str], None],
) -> None:
    """The file first, the role a second later; new connections all the time: nobody sees an error."""
    wrapper = make_wrapper(url=url, pool={"max_size": 4}, resilience={"password_file": str(file)})
    alias, errors, stop = wrapper.alias, [], threading.Event()
    answers = 0

    def work() -> None:
        nonlocal answers
        mine = make_wrapper(url=url, pool={"max_size": 4}, resilience={"password_file": str(file)})
        while not stop.is_set():
            try:
                pid_of(mine)
                answers += 1
            except Exception as error:
                errors.append(error)
            # As at the end of its life: the next query opens another.
            mine.resources.close("the test wants another connection", wait_seconds=0)
            time.sleep(0.01)

    assert connections[alias] is wrapper
    threads = [in_thread(work) for _ in range(4)]
    try:
        time.sleep(0.3)
        for new in (SECRETS[1], SECRETS[0]):
            (file.parent / "new").write_text(f"{new}\n")
            (file.parent / "new").rename(file)
            time.sleep(0.5)
            before = answers
            change_password(new)
            wait_until(lambda before=before: answers > before + 4 or errors, what="answers with the new password")
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    assert errors == []
    assert answers > 20
    time.sleep(MEMORY_SECONDS + 0.05)
    assert wrapper.resources.health().healthy


def raises() -> str:
    raise KeyError("first-secret is not in the vault")


@pytest.mark.parametrize("pooled", [True, False], ids=["pool", "no pool"])
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"password": raises}, "OPTIONS['resilience']['password'] raised KeyError"),
        ({"password": lambda: None}, "OPTIONS['resilience']['password'] returned NoneType; it must return a str"),
        ({"password": lambda: b"first-secret"}, "returned bytes; it must return a str"),
        ({"password": lambda: ""}, "gave an empty password"),
        ({"password": "first.secret"}, "OPTIONS['resilience']['password'] names a module that cannot be imported"),
        ({"password": "os.no_such"}, "OPTIONS['resilience']['password'] names nothing in its module"),
        ({"password_file": "/nowhere/first-secret"}, "password_file cannot be read: No such file or directory"),
        ({"password_file": "/dev/null"}, "password_file is empty"),
    ],
)
def test_no_password_is_a_503_that_names_the_setting(
    make_wrapper: MakeWrapper,
    url: str,
    given: dict[str, Any],
    says: str,
    pooled: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Refused like any request that gets no connection; the log has the cause, nothing has the secret."""
    wrapper = make_wrapper(url=url, pool=pooled, resilience=given)
    with caplog.at_level(logging.INFO), pytest.raises(OperationalError) as caught:
        pid_of(wrapper)
    assert classify(caught.value).status == 503
    assert classify(caught.value).name == "credentials"
    assert says in str(caught.value)
    cause = caught.value.__cause__
    assert isinstance(cause, PasswordUnavailable)
    assert isinstance(caught.value, DatabaseUnavailable) == pooled
    if given.get("password") is raises:
        assert isinstance(cause.__cause__, KeyError)
    if pooled:
        assert says in caplog.text
    assert "secret" not in f"{caught.value}{cause}{caplog.text}"
    health = wrapper.resources.health()
    assert (health.healthy, health.state) == (False, "credentials")


def test_a_file_that_appears_is_enough(make_wrapper: MakeWrapper, url: str, tmp_path: Path) -> None:
    """After a mistake was corrected nothing needs a restart."""
    file = tmp_path / "late"
    wrapper = make_wrapper(url=url, resilience={"password_file": str(file)})
    with pytest.raises(OperationalError):
        pid_of(wrapper)
    file.write_text(SECRETS[0])
    wait_until(lambda: answers(wrapper), timeout_seconds=2, what="an answer")


def answers(wrapper: Any) -> bool:
    try:
        return bool(pid_of(wrapper))
    except OperationalError:
        return False


def test_nothing_shows_the_password(make_wrapper: MakeWrapper, url: str) -> None:
    """Neither arguments nor settings nor the source itself, once it was used."""
    wrapper = make_wrapper(url=url, resilience={"password": Vault(SECRETS[0])})
    assert pid_of(wrapper)
    shown = f"{wrapper.get_connection_params()!r}{wrapper.resources.configuration!r}"
    assert "PasswordSource" in shown
    assert SECRETS[0] not in shown


def test_psql_is_given_it(make_wrapper: MakeWrapper, url: str, file: Path) -> None:
    """`manage.py dbshell` works as before."""
    wrapper = make_wrapper(url=url, resilience={"password_file": str(file)}, target_session_attrs="read-write")
    arguments, environment = wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, ["-Atc", "SELECT 6*7"])
    assert SECRETS[0] not in arguments
    assert environment == {"PGPASSWORD": SECRETS[0], "PGTARGETSESSIONATTRS": "read-write"}
    command = [sys.executable, "manage.py", "dbshell", "--", "-Atc", "SELECT 6*7"]
    env = site_environment(DATABASE_URL=f"{url}?password_file={file}")
    env["PATH"] = f"{program('psql').parent}:{env['PATH']}"
    done = subprocess.run(command, cwd=BASE_DIR, env=env, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("42\n", 0), done.stderr
    assert urlsplit(url).password is None
    file.unlink()
    with pytest.raises(CommandError, match="password_file cannot be read"):
        wrapper.client.settings_to_cmd_args_env(wrapper.settings_dict, [])
