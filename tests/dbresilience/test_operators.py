"""operators.py: orders in a file that only their own user can give."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from timeit import timeit
from typing import Any

import pytest

from dbresilience.operators import LOOK_SECONDS, OperatorOrders, OrderFile, Orders, OrdersUnusable
from tests.settings import BASE_DIR
from tests.support.postgres import wait_until


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


def test_those_who_heard_an_order_are_counted(file: OrderFile, folder: Path) -> None:
    """Processes, of the last order only, in a private file that ends with the next order."""
    assert file.heard_by() == 0
    asked, idle = (OperatorOrders(file, Pool()) for _ in range(2))
    asked.look()
    idle.look()
    file.pause(60)
    assert file.heard_by() == 0
    asked.look()
    asked.look()
    assert file.heard_by() == 1
    idle.look()
    assert file.heard_by() == 1, "it is the same process"
    program = (
        "import sys; from tests.dbresilience.test_operators import *\n"
        "OperatorOrders(OrderFile(('h', '1', 'n', 'u'), sys.argv[1]), Pool()).look()"
    )
    for heard_by in (2, 3):
        subprocess.run([sys.executable, "-c", program, str(folder)], cwd=BASE_DIR, check=True)
        assert file.heard_by() == heard_by
    (heard,) = folder.glob("*.heard")
    assert heard.stat().st_mode & 0o077 == 0
    file.recycle()
    assert not heard.exists()
    assert file.heard_by() == 0


def test_who_begins_after_an_order_is_not_counted(file: OrderFile) -> None:
    """There was nothing to obey, and the file does not grow with every new process."""
    file.recycle()
    OperatorOrders(file, Pool()).look()
    assert file.heard_by() == 0


def test_counting_follows_no_link_and_is_no_error(file: OrderFile, folder: Path, tmp_path: Path) -> None:
    """The order is obeyed all the same."""
    file.pause(60)
    precious = tmp_path / "precious"
    precious.write_text("as it was")
    Path(file.path).with_suffix(".heard").symlink_to(precious)
    pool = Pool()
    OperatorOrders(file, pool).look()
    assert pool.told == [("pause", 60)]
    assert file.heard_by() == 0
    assert precious.read_text() == "as it was"


@pytest.mark.timed
def test_looking_costs_next_to_nothing(file: OrderFile) -> None:
    """Four times a second at most; in between, one comparison."""
    orders = OperatorOrders(file, Pool())
    orders.look()
    microseconds = timeit(orders.look, number=2000) / 2000 * 1e6
    print(f"a look without orders takes {microseconds:.1f} µs")
    assert microseconds < 200
    assert orders.look_at > time.perf_counter() + LOOK_SECONDS / 2
