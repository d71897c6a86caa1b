"""resources.py: one pool per process, alias and configuration, through reload, fork and exit."""

from __future__ import annotations

import os

import pytest
from django.db import connections

from dbresilience import get_database_resources
from dbresilience.base import DatabaseWrapper
from tests.support.postgres import ThrowawayPostgres, wait_until
from tests.support.site import run_python

from .conftest import MakeWrapper, pid_of


def test_asking_again_gives_the_same(make_wrapper: MakeWrapper) -> None:
    """Two threads' wrappers share one pool."""
    assert make_wrapper().resources is make_wrapper().resources


def test_two_aliases_share_nothing(db: None) -> None:
    """The same configuration under two names is two pools."""
    default = connections["default"]
    copy = default.copy(alias="dbresilience_copy")
    try:
        assert copy.resources is not default.resources
        assert copy.resources.pool is not default.resources.pool
    finally:
        copy.resources.close("the test ended")


def test_a_changed_configuration_drains_and_replaces_the_pool(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """The old pool's idle connections go at once, used ones when they come back."""
    old, new = make_wrapper(pool={"max_size": 2}), make_wrapper(pool={"max_size": 3})
    with old.pinned():
        held = pid_of(old)
        assert new.resources.configuration.max_size == 3
        fresh = pid_of(new)
    assert held != fresh
    wait_until(lambda: postgres.backends(new.settings_dict["NAME"]) == 1)


def test_options_changed_in_place_are_noticed(wrapper: DatabaseWrapper) -> None:
    """Tests and override_settings edit the dict."""
    first = wrapper.resources
    wrapper.settings_dict["OPTIONS"]["pool"] = {"max_size": 4}
    assert wrapper.resources is not first
    assert wrapper.resources.configuration.max_size == 4
    wrapper.settings_dict["OPTIONS"]["pool"]["max_size"] = 6
    assert wrapper.resources.configuration.max_size == 6


def test_another_engine_is_named_in_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text says which setting to change."""
    monkeypatch.setitem(connections.settings, "other", dict(connections.settings["default"]))
    monkeypatch.setitem(connections.settings["other"], "ENGINE", "django.db.backends.postgresql")
    with pytest.raises(TypeError, match="Set its ENGINE to 'dbresilience'"):
        get_database_resources("other")


def test_a_fork_within_a_transaction_leaves_it_to_the_parent(wrapper: DatabaseWrapper) -> None:
    """The child has no transaction and no connection."""
    wrapper.set_autocommit(False)
    before = pid_of(wrapper)
    child = os.fork()
    if child == 0:
        os._exit(0 if wrapper.connection is None and pid_of(wrapper) != before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert pid_of(wrapper) == before
    wrapper.rollback()
    wrapper.set_autocommit(True)


@pytest.mark.timed
def test_a_process_that_queried_ends_at_once_and_leaves_no_session(
    database_url: str, postgres: ThrowawayPostgres
) -> None:
    """No waiting for threads, no traceback, no zombie session."""
    done = run_python(
        """
        import time, atexit
        from django.contrib.auth.models import User
        print(User.objects.count())
        started = time.monotonic()
        atexit._run_exitfuncs()
        assert time.monotonic() - started < 1
        """,
        database_url,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "couldn't stop" not in done.stderr
    name = database_url.rsplit("/", 1)[1]
    wait_until(lambda: postgres.backends(name) == 0, timeout_seconds=2)


def test_an_impossible_option_stops_the_start(database_url: str) -> None:
    """`django.setup()` fails and the text names the key."""
    done = run_python("", database_url + "?pool_max_size=none-at-all")
    assert done.returncode != 0
    assert "pool_max_size" in done.stderr
