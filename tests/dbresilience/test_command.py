"""`manage.py dbresilience`: what an operator types, and what becomes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction

from dbresilience import activity, get_database_resources
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import StatementOverdue
from dbresilience.operators import OrderFile
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.proxy import SEEN, Proxy

from .conftest import Command, MakeWrapper, in_thread, orders_of, pid_of

pytestmark = pytest.mark.timed


class Clients:
    """Eight threads that write and read all the time, each as a request would."""

    def __init__(self, make: Callable[[], DatabaseWrapper]) -> None:
        self.errors: list[Exception] = []
        self.answers = 0
        self._make = make
        self._stop = threading.Event()

    def __enter__(self) -> Clients:
        self._threads = [in_thread(self._work) for _ in range(8)]
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _work(self) -> None:
        wrapper = self._make()
        while not self._stop.is_set():
            try:
                with transaction.atomic(using=wrapper.alias), wrapper.cursor() as cursor:
                    cursor.execute("INSERT INTO counted DEFAULT VALUES")
                    cursor.execute("SELECT pg_sleep(0.002)")
                pid_of(wrapper)
                self.answers += 1
            except Exception as error:
                self.errors.append(error)
            time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "smart"])
def test_a_planned_restart_under_load_is_no_error(
    make_wrapper: MakeWrapper,
    folder: Path,
    postgres: ThrowawayPostgres,
    database_url: str,
    command: Command,
    mode: str,
) -> None:
    """Eight threads on four connections; pause, restart, resume: nobody is refused and nothing is lost."""
    make = lambda: make_wrapper(pool={"max_size": 4, "timeout": 15}, runtime_folder=str(folder))  # noqa: E731
    with make().cursor() as cursor:
        cursor.execute("CREATE TABLE counted (number bigserial)")
    with Clients(make) as clients:
        time.sleep(0.5)
        paused = command("pause", "--seconds=30", "--json")
        facts = json.loads(paused.stdout)
        assert paused.returncode == 0, paused.stderr
        answers = clients.answers
        started = time.monotonic()
        postgres.restart(mode)
        restarted = time.monotonic() - started
        assert clients.answers == answers
        resumed = command("resume")
        assert resumed.stdout.startswith("Resumed"), resumed.stderr
        wait_until(lambda: clients.answers > answers + 40, what="answers after the restart")
    print(f"paused after {facts['waited_seconds']} s, restarted ({mode}) in {restarted:.2f} s, "
          f"{clients.answers} answers, {len(clients.errors)} errors")  # fmt: skip
    assert clients.errors == []
    assert (facts["paused"], facts["at_work"]) == (True, 0)
    assert facts["sessions_before"] == facts["sessions_ended"] >= 1
    assert facts["heard_by"] == 1
    assert "Heard by 1 process so far." in resumed.stdout
    with make().cursor() as cursor:
        cursor.execute("SELECT count(*) FROM counted")
        assert cursor.fetchone()[0] == clients.answers


@pytest.fixture
def in_transaction(make_wrapper: MakeWrapper, folder: Path) -> Iterator[DatabaseWrapper]:
    wrapper = make_wrapper(runtime_folder=str(folder))
    with transaction.atomic(using=wrapper.alias):
        pid_of(wrapper)
        yield wrapper


@pytest.mark.slow
def test_a_pause_that_cannot_be_is_withdrawn(in_transaction: DatabaseWrapper, command: Command) -> None:
    """Exit code 1, and who is at work."""
    refused = command("pause", "--wait-seconds=0.3")
    assert refused.returncode == 1
    assert "1 were still at work after 0.3 s" in refused.stderr
    assert "idle in transaction for" in refused.stderr
    assert "Waiting until nobody is at work: 1 at work, 0 idle." in refused.stdout
    assert orders_of(in_transaction).read().paused_until == 0


@pytest.mark.slow
def test_a_frozen_server_does_not_keep_who_asks_for_its_sessions(
    make_wrapper: MakeWrapper, database_url: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each look has time of its own; the operator is told."""
    monkeypatch.setattr(activity, "LONGEST_LOOK_SECONDS", 0.5)
    proxy.cut_when(lambda message: "pg_stat_activity" in message.sql, after=SEEN, how="swallow")
    with closing(make_wrapper(url=proxy.url(database_url)).resources.connect()) as connection:
        with pytest.raises(StatementOverdue):
            activity.look(connection)


def test_the_pause_of_another_operator_is_not_withdrawn(in_transaction: DatabaseWrapper, command: Command) -> None:
    """Who gives up takes back what they ordered, and nothing that was ordered since."""
    file, refused = orders_of(in_transaction), []
    thread = in_thread(lambda: refused.append(command("pause", "--wait-seconds=1.5")))
    wait_until(lambda: file.read().paused_until, what="the first pause")
    until = file.pause(90)
    thread.join(30)
    assert refused[0].returncode == 1
    assert file.read().paused_until == until
    file.resume()


@pytest.mark.slow
def test_the_command_tells_of_sessions_whose_processes_have_not_heard_it(
    pooled: DatabaseWrapper, command: Command, make_wrapper: MakeWrapper, folder: Path
) -> None:
    """This process is asked all the time, and hears it; the session of another one stays."""
    pid_of(pooled)
    stop = threading.Event()

    def ask() -> None:
        wrapper = make_wrapper(pool={"timeout": 0.6}, runtime_folder=str(folder))
        while not stop.wait(0.02):
            with suppress(OperationalError):  # it may wait less than the pause lasts
                pid_of(wrapper)

    thread = in_thread(ask)
    try:
        with closing(pooled.resources.connect()):
            said = command("pause").stdout
        resumed = json.loads(command("resume", "--json").stdout)
    finally:
        stop.set()
        thread.join(10)
    assert "sessions ended, 1 idle. Heard by 1 process so far.\nIdle processes hear it" in said
    assert resumed["heard_by"] == 1


def test_a_mistake_of_ours_is_not_called_a_wrong_setting(
    pooled: DatabaseWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps its traceback; another ENGINE is one line and exit code 2."""

    def mistaken(file: OrderFile) -> None:
        raise TypeError("a mistake of ours")

    monkeypatch.setattr(OrderFile, "recycle", mistaken)
    with pytest.raises(TypeError, match="a mistake of ours"):
        call_command("dbresilience", "recycle", "--database", pooled.alias)
    monkeypatch.setitem(connections.settings, "other", {**pooled.settings_dict, "ENGINE": "django.db.backends.sqlite3"})
    with pytest.raises(CommandError, match=r"DATABASES\['other'\] does not use dbresilience") as caught:
        call_command("dbresilience", "recycle", "--database", "other")
    assert caught.value.returncode == 2
    with pytest.raises(TypeError, match="does not use dbresilience"):
        get_database_resources("other")
    del connections["other"]


@pytest.mark.slow
def test_the_command_says_what_is_and_what_to_do(
    pooled: DatabaseWrapper, command: Command, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """Texts for people, JSON for programs, exit codes for scripts."""
    pid_of(pooled)
    said = command("pause", "--seconds=40").stdout
    assert "Now: 0 at work, 1 idle." in said
    assert "0 of 1 sessions ended, 1 idle. Heard by 0 processes so far.\nNobody has heard it yet: idle" in said
    assert "Restart PostgreSQL now, then run: manage.py dbresilience resume" in said
    assert json.loads(command("resume", "--json").stdout) == {
        "order": "resume", "database": "default", "was_paused": True, "heard_by": 0,
    }  # fmt: skip
    assert command("resume").stdout == "'default' was not paused.\n"
    recycled = command("recycle")
    assert recycled.returncode == 0
    assert "Nobody has heard it yet" in recycled.stdout
    assert json.loads(command("recycle", "--json").stdout)["heard_by"] == 0
    unseen = json.loads(command("pause", "--wait-seconds=0", "--json").stdout)
    assert unseen["paused"]
    assert "at_work" not in unseen
    assert unseen["heard_by"] == 0
    command("resume")
    for wrong in (["pause", "--seconds=0"], ["pause", "--seconds=soon"], ["stop"], []):
        assert command(*wrong).returncode == 2
    assert command("pause", url=f"{database_url}?pool=false").returncode == 2
    postgres.stop("fast")
    away = command("pause", "--json")
    assert away.returncode == 3
    assert json.loads(away.stdout)["paused"] is False
    assert orders_of(pooled).read().paused_until == 0
