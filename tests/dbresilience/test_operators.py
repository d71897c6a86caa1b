"""operators.py and `manage.py dbresilience`: a planned restart that nobody notices."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from timeit import timeit
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections, transaction

from dbresilience import get_database_resources
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import classify
from dbresilience.operators import LOOK_SECONDS, OperatorOrders, OrderFile, Orders, OrdersUnusable
from tests.settings import BASE_DIR
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import site_environment

from .conftest import MakeWrapper, in_thread, pid_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "orders"


@pytest.fixture
def file(folder: Path) -> OrderFile:
    return OrderFile(("h", "1", "n", "u"), str(folder))


class Pool:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def pause(self, seconds: float) -> None:
        self.told.append(("pause", round(seconds)))

    def resume(self) -> None:
        self.told.append("resume")

    def recycle(self) -> None:
        self.told.append("recycle")


def test_each_order_is_obeyed_once(file: OrderFile) -> None:
    """Also where nothing was ordered before, and where the file is gone again."""
    pool = Pool()
    orders = OperatorOrders(file, pool)
    orders.look()
    assert pool.told == []
    file.pause(60)
    orders.look()
    orders.look()
    file.recycle()
    orders.look()
    assert file.resume()
    orders.look()
    assert not file.resume()
    os.remove(file.path)
    orders.look()
    assert pool.told == [("pause", 60), "recycle", "resume"]


def test_a_pause_can_be_ended_by_who_ordered_it_only(file: OrderFile) -> None:
    """The end that was written tells them apart."""
    mine = file.pause(30)
    theirs = file.pause(60)
    assert not file.resume(ordered_until=mine)
    assert file.read().paused_until == theirs
    assert file.resume(ordered_until=theirs)
    assert not file.read().paused_until


def test_a_process_that_begins_in_a_pause_keeps_it(file: OrderFile) -> None:
    """What was ordered before is news only as far as it lasts."""
    file.recycle()
    file.pause(60)
    pool = Pool()
    OperatorOrders(file, pool).look()
    assert pool.told == [("pause", 60)]
    later = Pool()
    file.resume()
    OperatorOrders(file, later).look()
    assert later.told == []


def test_a_pause_is_heard_to_end_by_those_who_only_wait(file: OrderFile) -> None:
    """Nobody acquires, and yet somebody looks."""
    pool = Pool()
    file.pause(60)
    OperatorOrders(file, pool).look()
    file.resume()
    wait_until(lambda: pool.told[-1] == "resume", timeout_seconds=LOOK_SECONDS * 3, what="resume")


def test_a_clock_that_was_set_back_prolongs_nothing(file: OrderFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pause lasts as long as it was meant to, at most."""
    file.pause(2)
    monkeypatch.setattr("dbresilience.operators.time", lambda: time.time() - 3600)
    pool = Pool()
    OperatorOrders(file, pool).look()
    assert pool.told == [("pause", 2)]


@pytest.mark.parametrize("mistake", ["open folder", "open file", "symbolic link", "somebody else's"])
def test_orders_that_others_could_give_are_none(
    folder: Path, file: OrderFile, mistake: str, caplog: pytest.LogCaptureFixture
) -> None:
    """They are refused by the command, and ignored by the processes."""
    file.pause(60)
    match mistake:
        case "open folder":
            folder.chmod(0o755)
        case "open file":
            Path(file.path).chmod(0o666)
        case "symbolic link":
            folder.rename(folder.with_name("elsewhere"))
            folder.symlink_to(folder.with_name("elsewhere"))
        case _:
            if os.geteuid() != 0:
                pytest.skip("only root can give a folder away")
            os.chown(folder, 65534, 65534)
    with pytest.raises(OrdersUnusable, match=r"runtime_folder|remove it"):
        file.read()
    if mistake != "open file":
        with pytest.raises(OrdersUnusable, match=r"runtime_folder|remove it"):
            file.pause(60)
    pool = Pool()
    OperatorOrders(file, pool).look()
    assert pool.told == []
    assert "Orders are ignored" in caplog.text


def test_nonsense_is_no_order(file: OrderFile) -> None:
    """And the next order is written over it."""
    file.recycle()
    Path(file.path).write_text("{")
    with pytest.raises(OrdersUnusable):
        file.read()
    file.pause(5)
    assert file.read().pause_seconds == 5


def test_the_folder_is_private_and_names_nobody(folder: Path, file: OrderFile) -> None:
    """Mode 700; neither host nor user nor database in a name."""
    file.recycle()
    assert folder.stat().st_mode & 0o777 == 0o700
    (only,) = folder.iterdir()
    assert only.stat().st_mode & 0o077 == 0
    assert len(only.stem) == 32
    assert OrderFile(("h", "1", "n", "v"), str(folder)).path != file.path
    assert OrderFile(("h", "1", "n", "u"), str(folder)).path == file.path
    assert OrderFile(("h", "1", "n", "u")).read() == Orders()


def test_looking_costs_next_to_nothing(file: OrderFile) -> None:
    """Four times a second at most; in between, one comparison."""
    orders = OperatorOrders(file, Pool())
    orders.look()
    microseconds = timeit(orders.look, number=2000) / 2000 * 1e6
    print(f"a look without orders takes {microseconds:.1f} µs")
    assert microseconds < 200
    assert orders.look_at > time.perf_counter() + LOOK_SECONDS / 2


# In a process


@pytest.fixture
def pooled(make_wrapper: MakeWrapper, folder: Path) -> DatabaseWrapper:
    return make_wrapper(pool={"timeout": 0.6}, runtime_folder=str(folder))


def orders_of(wrapper: DatabaseWrapper) -> OrderFile:
    found = wrapper.resources.orders
    assert found is not None
    return found


def test_a_request_waits_for_the_end_of_a_pause(pooled: DatabaseWrapper) -> None:
    """Its connection was closed meanwhile."""
    pid = pid_of(pooled)
    orders_of(pooled).pause(60)
    time.sleep(LOOK_SECONDS)
    threading.Timer(0.2, orders_of(pooled).resume).start()
    started = time.monotonic()
    assert pid_of(pooled) != pid
    assert 0.15 < time.monotonic() - started < 0.6


def test_a_forgotten_pause_ends(pooled: DatabaseWrapper) -> None:
    """By itself, at the time that was given."""
    pid_of(pooled)
    orders_of(pooled).pause(0.8)
    time.sleep(LOOK_SECONDS)
    started = time.monotonic()
    pid_of(pooled)
    assert 0.3 < time.monotonic() - started < 0.6


def test_a_pause_that_lasts_too_long_is_a_503_that_says_so(pooled: DatabaseWrapper) -> None:
    """Within the time that a request may wait, not after it."""
    get_database_resources(pooled.alias).pause(60)
    started = time.monotonic()
    with pytest.raises(OperationalError, match="is paused by an operator") as caught:
        pid_of(pooled)
    assert time.monotonic() - started < 0.9
    assert classify(caught.value).status == 503
    get_database_resources(pooled.alias).resume()
    assert pid_of(pooled)


def test_recycling_replaces_connections_that_are_in_use_when_they_come_back(pooled: DatabaseWrapper) -> None:
    """By the file, and from code."""
    with pooled.pinned():
        pid = pid_of(pooled)
        orders_of(pooled).recycle()
        time.sleep(LOOK_SECONDS)
        assert pid_of(pooled) == pid
    in_between = pid_of(pooled)
    if in_between == pid:  # the first acquire after it was the one that looked
        in_between = pid_of(pooled)
    assert in_between != pid
    assert pid_of(pooled) == in_between
    pooled.resources.recycle()
    assert pid_of(pooled) != in_between


def test_work_in_progress_gets_its_second_connection(
    make_wrapper: MakeWrapper, pooled: DatabaseWrapper, database_url: str
) -> None:
    """Else a transaction would wait for the pause, and the pause for the transaction."""
    with transaction.atomic(using=pooled.alias):
        pid_of(pooled)
        pooled.resources.pause(60)
        other = DatabaseWrapper(pooled.settings_dict, pooled.alias)
        assert pid_of(other)
        done: list[object] = []

        def try_elsewhere() -> None:
            try:
                pid_of(
                    make_wrapper(
                        pool={"timeout": 0.6}, runtime_folder=pooled.settings_dict["OPTIONS"]["runtime_folder"]
                    )
                )
            except OperationalError as error:
                done.append(error)

        in_thread(try_elsewhere).join(5)
        assert "is paused" in str(done)
    pooled.resources.resume()


@pytest.mark.parametrize("seconds", [0, -1, 3601])
def test_an_endless_pause_is_refused(pooled: DatabaseWrapper, seconds: float) -> None:
    """It would be an outage."""
    with pytest.raises(ValueError, match="seconds is"):
        pooled.resources.pause(seconds)


def test_without_a_pool_there_is_nothing_to_pause(make_wrapper: MakeWrapper) -> None:
    """The error names the setting."""
    resources = make_wrapper(pool=False).resources
    for order in (resources.recycle, resources.resume, lambda: resources.pause(5)):
        with pytest.raises(ImproperlyConfigured, match=r"OPTIONS\['pool'\]"):
            order()


# The command

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def command(database_url: str, folder: Path) -> Command:
    """`command("pause", "--seconds=5")` as an operator would give it, in a process of its own."""

    def run(*arguments: str, url: str = f"{database_url}?runtime_folder={folder}") -> Any:
        return subprocess.run(
            [sys.executable, "manage.py", "dbresilience", *arguments],
            cwd=BASE_DIR, env=site_environment(DATABASE_URL=url), capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    return run


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
    assert facts["sessions_before"] >= 1
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
    assert "Restart PostgreSQL now, then run: manage.py dbresilience resume" in said
    assert json.loads(command("resume", "--json").stdout) == {
        "order": "resume", "database": "default", "was_paused": True,
    }  # fmt: skip
    assert command("resume").stdout == "'default' was not paused.\n"
    assert command("recycle").returncode == 0
    unseen = json.loads(command("pause", "--wait-seconds=0", "--json").stdout)
    assert unseen["paused"]
    assert "at_work" not in unseen
    command("resume")
    for wrong in (["pause", "--seconds=0"], ["pause", "--seconds=soon"], ["stop"], []):
        assert command(*wrong).returncode == 2
    assert command("pause", url=f"{database_url}?pool=false").returncode == 2
    postgres.stop("fast")
    away = command("pause", "--json")
    assert away.returncode == 3
    assert json.loads(away.stdout)["paused"] is False
    assert orders_of(pooled).read().paused_until == 0
