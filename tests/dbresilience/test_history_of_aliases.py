"""history.py and processes.py with several databases: what happens to one is not told of another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.db import OperationalError, connections
from django.test import RequestFactory

from dbresilience import reporting
from dbresilience.base import DatabaseWrapper
from dbresilience.errors import alias_of
from dbresilience.history import _history_of
from dbresilience.processes import Process, look
from dbresilience.unavailable import response_for
from tests.dbresilience.conftest import MakeWrapper, run, settings_for
from tests.support.proxy import Proxy


def processes(wrapper: DatabaseWrapper) -> list[Process]:
    reporting.report()
    return look(wrapper.resources.orders, wrapper.alias).processes


def refuse(error: BaseException) -> None:
    assert response_for(RequestFactory().get("/"), error) is not None


@pytest.fixture
def other(make_wrapper: MakeWrapper, folder: Path) -> DatabaseWrapper:
    """Used, and well."""
    wrapper = make_wrapper(runtime_folder=str(folder))
    run(wrapper, "SELECT 1")
    return wrapper


def failure_of(wrapper: DatabaseWrapper, query: str) -> OperationalError:
    with pytest.raises(OperationalError) as caught:
        run(wrapper, query)
    return caught.value


def test_a_refused_request_is_that_of_its_database(
    database_url: str, other: DatabaseWrapper, proxy: Proxy, folder: Path
) -> None:
    """Whether nobody could connect or a statement was cut off; the database beside it refuses nobody."""
    connections.settings["replica"] = settings_for(proxy.url(database_url), runtime_folder=str(folder))
    replica = connections["replica"]
    try:
        run(replica, "SELECT 1")
        proxy.cut_when(lambda message: "pg_sleep" in message.sql, after="sent")
        cut_off = failure_of(replica, "SELECT nextval('pg_sleep')")
        proxy.refuse()
        proxy.cut()
        away = failure_of(replica, "SELECT 1")
        for error in (cut_off, away):
            assert alias_of(error) == "replica"
            refuse(error)
        (process,) = processes(replica)
        assert process.minute.count("refused_total") == 2
        (process,) = processes(other)
        assert process.minute.count("refused_total") == 0
    finally:
        replica.close()
        replica.resources.close("the test ended")
        del connections["replica"]
        del connections.settings["replica"]


def test_who_could_not_connect_waited_for_no_pool(make_wrapper: MakeWrapper, folder: Path, proxy: Proxy) -> None:
    """The advice to raise max_size would be wrong, and so would a headline of full pools."""
    wrapper = make_wrapper(pool={"timeout": 0.3}, runtime_folder=str(folder))
    wrapper.settings_dict["PORT"] = str(proxy.port)
    proxy.swallow()
    failure_of(wrapper, "SELECT 1")
    proxy.restore()
    history = _history_of(wrapper.alias)
    assert history.counts["timed_out_total"] == 0
    assert any("No connection could be opened within 0.3 s" in event["text"] for event in history._events)


def test_two_aliases_of_one_database_are_one_process(make_wrapper: MakeWrapper, folder: Path) -> None:
    """Each tells of its own pool; a process that has the other alias only is told of in both."""
    wrapper = make_wrapper(runtime_folder=str(folder))
    run(wrapper, "SELECT 1")
    connections.settings["reader"] = {
        **wrapper.settings_dict,
        "OPTIONS": {"runtime_folder": str(folder), "pool": {"max_size": 2}},
    }
    reader = connections["reader"]
    try:
        assert [each.about.alias for each in processes(reader)] == [wrapper.alias]
        run(reader, "SELECT 1")
        assert [(each.about.pid, each.about.alias) for each in processes(reader)] == [(os.getpid(), "reader")]
        assert [(each.about.pid, each.about.alias) for each in processes(wrapper)] == [(os.getpid(), wrapper.alias)]
    finally:
        reader.close()
        reader.resources.close("the test ended")
        del connections["reader"]
        del connections.settings["reader"]


def test_what_differs_is_told_however_fast_it_follows(wrapper: DatabaseWrapper) -> None:
    """The same again is not: an outage would fill the time line with one sentence."""
    history = _history_of(wrapper.alias)
    history.add_event("connection_failed", "A connection was refused: server_full")
    history.add_event("connection_failed", "A connection was refused: credentials")
    history.add_event("acquire_timed_out", "No connection became free within 0.3 s")
    history.add_event("acquire_timed_out", "No connection became free within 0.4 s")
    assert [event["text"].rsplit(maxsplit=1)[-1] for event in history._events] == ["server_full", "credentials", "s"]
