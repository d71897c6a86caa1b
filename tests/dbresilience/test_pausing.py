"""pause, resume and recycle, as requests see them."""

from __future__ import annotations

import threading
import time

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import OperationalError, transaction

from dbresilience import get_database_resources
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import classify
from dbresilience.operators import LOOK_SECONDS

from .conftest import MakeWrapper, in_thread, orders_of, pid_of

pytestmark = pytest.mark.timed


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
