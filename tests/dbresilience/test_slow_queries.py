"""slow_queries.py and logs.py: which statement, how long, from where, for which request."""

from __future__ import annotations

import json
import logging

import pytest
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from psycopg import sql

from dbresilience import signals
from dbresilience.logs import connect_receivers
from dbresilience.middleware import RequestContextMiddleware

from .conftest import MakeWrapper, pid_of

LOG = "dbresilience.slow_queries"


def sleep(wrapper, seconds: float = 0.06, note: str = "hush") -> None:  # type: ignore[no-untyped-def]
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT pg_sleep(%s),\n   %s", [seconds, note])


def records(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == LOG]


def test_a_slow_query_is_one_line_with_everything(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """SQL without parameters, duration, rows, wait, call site."""
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.05})
    sleep(wrapper)
    (record,) = records(caplog)
    text = record.getMessage()
    assert "SELECT pg_sleep(%s), %s" in text
    assert "hush" not in text
    assert "1 rows" in text
    assert "test_slow_queries.py:" in text
    assert "in sleep" in text
    assert record.duration_seconds >= 0.05  # type: ignore[attr-defined]
    assert record.event == "slow_query"  # type: ignore[attr-defined]


def test_a_quick_query_is_none(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """The threshold is a threshold, and None is never."""
    pid_of(make_wrapper(resilience={"slow_query_seconds": 5}))
    sleep(make_wrapper(resilience={"slow_query_seconds": None}))
    assert not records(caplog)


def test_parameters_only_when_asked_for(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """slow_query_parameters=True."""
    sleep(make_wrapper(resilience={"slow_query_seconds": 0.05, "slow_query_parameters": True}))
    assert "hush" in records(caplog)[0].getMessage()


def test_composed_values_are_parameters_too(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """sql.Literal puts a value into the text of the statement."""
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.05})
    with wrapper.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT pg_sleep(0.06), {}").format(sql.Literal("hush")))
    assert "SELECT pg_sleep(0.06), %s" in records(caplog)[0].getMessage()


def test_a_slow_failure_is_logged_too(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """A statement ended by statement_timeout is the slowest of all."""
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.05, "statement_timeout_seconds": 0.1})
    with pytest.raises(OperationalError):
        sleep(wrapper, 5)
    assert len(records(caplog)) == 1


def test_the_request_is_named(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """Method and path, without the query string."""
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.05})
    request = HttpRequest()
    request.method, request.path = "POST", "/api/chat"

    def view(request: HttpRequest) -> HttpResponse:
        sleep(wrapper)
        return HttpResponse()

    RequestContextMiddleware(view)(request)
    assert "for POST /api/chat" in records(caplog)[0].getMessage()
    sleep(wrapper)
    assert records(caplog)[1].path is None  # type: ignore[attr-defined]


def test_the_wait_for_the_connection_is_apart(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """It belongs to the first statement of the lease only."""
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.05})
    pid_of(wrapper)
    caplog.clear()
    with wrapper.cursor() as cursor:
        assert wrapper._lease is not None
        wrapper._lease.wait_seconds = 1.5
        cursor.execute("SELECT pg_sleep(0.06)")
        cursor.execute("SELECT pg_sleep(0.06)")
    waits = [record.wait_seconds for record in records(caplog)]  # type: ignore[attr-defined]
    assert waits == [1.5, 0.0]


def test_fields_survive_json(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """Production formats the same record as one JSON object."""
    from pythonjsonlogger.json import JsonFormatter

    sleep(make_wrapper(resilience={"slow_query_seconds": 0.05}))
    formatted = json.loads(JsonFormatter().format(records(caplog)[0]))
    assert formatted["event"] == "slow_query"
    assert formatted["rows"] == 1


def test_with_the_debug_cursor(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """DEBUG's query log, CaptureQueriesContext and the toolbar wrap the cursor; ours is below."""
    wrapper = make_wrapper(resilience={"slow_query_seconds": 0.05})
    wrapper.force_debug_cursor = True
    sleep(wrapper)
    assert len(records(caplog)) == 1
    assert "pg_sleep" in wrapper.queries_log[-1]["sql"]


def test_lifecycle_signals_in_order(make_wrapper: MakeWrapper) -> None:
    """Connect, acquire, release, close."""
    seen: list[str] = []
    watched = {
        "opened": signals.connection_opened,
        "acquired": signals.connection_acquired,
        "released": signals.connection_released,
        "closed": signals.pool_closed,
    }
    receivers = {name: (lambda sender, name=name, **details: seen.append(name)) for name in watched}
    for name, signal in watched.items():
        signal.connect(receivers[name])
    try:
        wrapper = make_wrapper(pool={"max_size": 1})
        pid_of(wrapper)
        wrapper.close_pool()
    finally:
        for name, signal in watched.items():
            signal.disconnect(receivers[name])
    assert seen == ["opened", "acquired", "released", "closed"]


def test_a_receiver_that_raises_costs_nothing(make_wrapper: MakeWrapper) -> None:
    """Neither a query nor a connection."""

    def broken(sender: str, **details: object) -> None:
        raise ZeroDivisionError

    for signal in (signals.connection_acquired, signals.connection_released, signals.connection_opened):
        signal.connect(broken)
    try:
        wrapper = make_wrapper()
        pid_of(wrapper)
    finally:
        for signal in (signals.connection_acquired, signals.connection_released, signals.connection_opened):
            signal.disconnect(broken)
    assert wrapper.resources.snapshot().in_use == 0


def test_connecting_the_receivers_twice_logs_once(make_wrapper: MakeWrapper, caplog: pytest.LogCaptureFixture) -> None:
    """Reload re-runs it."""
    connect_receivers()
    connect_receivers()
    sleep(make_wrapper(resilience={"slow_query_seconds": 0.05}))
    assert len(records(caplog)) == 1
