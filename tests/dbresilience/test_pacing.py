"""pacing.py: one at a time on this machine."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dbresilience.operators import OrderFile
from dbresilience.pacing import SharedPace


@pytest.fixture
def orders(tmp_path: Path) -> OrderFile:
    tmp_path.chmod(0o700)
    return OrderFile(("h", "1", "n", "u"), str(tmp_path))


def test_all_processes_of_a_machine_share_the_pace_of_a_full_server(orders: OrderFile) -> None:
    """Forty workers dial it four times a second together; where one found a slot the next may try at once."""
    paces = [SharedPace(orders, 0.2) for _ in range(40)]
    assert sum(pace.take_turn() for pace in paces) == 1
    time.sleep(0.25)
    assert sum(pace.take_turn() for pace in paces) == 1
    paces[0].clear()
    assert sum(pace.take_turn() for pace in paces) == 1


def test_another_process_counts(orders: OrderFile) -> None:
    """Its turn is nobody's here."""
    program = (
        "import sys; from dbresilience.operators import OrderFile; from dbresilience.pacing import SharedPace; "
        "print(SharedPace(OrderFile(('h', '1', 'n', 'u'), sys.argv[1]), 60).take_turn())"
    )
    for turn in ("True", "False"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(orders.folder)], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == turn
    assert not SharedPace(orders, 60).take_turn()


def test_each_database_has_a_pace_of_its_own(orders: OrderFile) -> None:
    """One that is full is nothing to another."""
    other = OrderFile(("h", "1", "other", "u"), str(orders.folder))
    assert SharedPace(orders, 60).take_turn()
    assert SharedPace(other, 60).take_turn()


def test_a_clock_that_was_set_back_delays_nobody(orders: OrderFile) -> None:
    """A turn in the future is none."""
    pace = SharedPace(orders, 60)
    assert pace.take_turn()
    (file,) = (name for name in os.listdir(orders.folder) if name.endswith(".turn"))
    later = time.time() + 3600
    os.utime(orders.folder / file, (later, later))
    assert pace.take_turn()


def test_the_file_is_ours_alone(orders: OrderFile) -> None:
    """Nobody else can hold up this user's processes."""
    SharedPace(orders, 60).take_turn()
    (file,) = orders.folder.glob("*.turn")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_without_a_folder_everybody_has_a_turn() -> None:
    """To share is no condition."""
    pace = SharedPace(OrderFile(("h", "1", "n", "u"), "/proc/no/such"), 60)
    assert pace.take_turn()
    assert pace.take_turn()
    pace.clear()
