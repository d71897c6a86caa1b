"""deadlines.py and overdue.py: whose time it is, and what may still be done when it is over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.core.handlers.base import BaseHandler
from django.db import OperationalError, transaction
from django.http import HttpRequest, StreamingHttpResponse
from django.test import RequestFactory

from dbresilience import AcquireTimeout, classify, deadline
from dbresilience.deadlines import Allowance, _allowance_of_request, current_allowance, seconds_left, spend
from tests.support.postgres import ThrowawayPostgres

from .conftest import MakeWrapper, in_thread, pid_of, run


@pytest.mark.parametrize("block", [lambda: deadline(0.3), _allowance_of_request], ids=["block", "request"])
def test_what_outlives_it_has_no_deadline_any_more(block: Callable[[], Any]) -> None:
    """A task that it started has a copy of its context, and all the time it needs."""
    with block():
        inherited = copy_context()
        assert inherited.run(current_allowance) is not None
    assert inherited.run(current_allowance) is None


def test_a_streamed_response_ends_with_its_last_part() -> None:
    """The thread goes on to other work, and what the response has started has time of its own."""
    response = StreamingHttpResponse([])
    with _allowance_of_request() as keep_for:
        keep_for(response)
    inherited = copy_context()
    assert current_allowance() is not None
    response.close()
    assert current_allowance() is None
    assert inherited.run(current_allowance) is None


def test_under_asgi_a_streamed_response_has_the_whole_of_it_again() -> None:
    """As under WSGI: each statement begins with all of it."""

    async def stream(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse([])

    async def answer() -> None:
        handler = BaseHandler()
        handler._middleware_chain = stream  # type: ignore[attr-defined]
        response = await handler.get_response_async(RequestFactory().get("/"))
        spend(5)
        assert seconds_left(9, 3) == 3
        response.close()
        assert current_allowance() is None

    async_to_sync(answer)()


def test_calls_at_the_same_time_have_a_deadline_each() -> None:
    """The first to return does not end that of the other."""
    entered, leave = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]
    left: list[Allowance | None] = []

    @deadline(0.3)
    def call(number: int) -> None:
        entered[number].set()
        leave[number].wait(5)
        left.append(current_allowance())

    threads = []
    for number in range(2):
        threads.append(in_thread(lambda number=number: call(number)))  # type: ignore[misc]
        assert entered[number].wait(5)
    for number in range(2):
        leave[number].set()
        threads[number].join(5)
    assert None not in left
    assert len(set(left)) == 2


def test_a_statement_that_is_not_sent_any_more_harms_no_connection(make_wrapper: MakeWrapper) -> None:
    """Within a transaction, which is rolled back: the server knows nothing of it, and the connection goes on."""
    wrapper = make_wrapper()
    pid = pid_of(wrapper)
    with pytest.raises(OperationalError) as caught, deadline(0.3), transaction.atomic(using=wrapper.alias):
        spend(1)
        run(wrapper, "SELECT 1")
    assert classify(caught.value).name == "out_of_time"
    assert pid_of(wrapper) == pid


def test_a_commit_that_has_begun_has_time_of_its_own(make_wrapper: MakeWrapper) -> None:
    """Cut off, it would leave a doubt; when the time is over before, it does not begin."""
    wrapper = make_wrapper()
    run(
        wrapper,
        "CREATE TABLE notes (id int);"
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END';"
        "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON notes DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION slow()",
    )
    with deadline(0.3), transaction.atomic(using=wrapper.alias):
        run(wrapper, "INSERT INTO notes VALUES (1)")
    with pytest.raises(OperationalError) as caught, deadline(0.3), transaction.atomic(using=wrapper.alias):
        run(wrapper, "INSERT INTO notes VALUES (2)")
        spend(1)
    assert classify(caught.value).name == "out_of_time"
    assert run(wrapper, "SELECT id FROM notes") == [(1,)]


@pytest.mark.timed
def test_a_wait_in_vain_is_spent(make_wrapper: MakeWrapper) -> None:
    """Who asks again and again waits no longer for it than the request may."""
    pool = {"max_size": 1, "timeout": 0.3}
    holder = make_wrapper(pool=pool)
    pid_of(holder)
    asker = make_wrapper(pool=pool)
    with holder.pinned(), deadline(5):
        with pytest.raises(AcquireTimeout):
            pid_of(asker)
        assert 4 < seconds_left(9, None) < 4.75


def test_the_pools_own_work_belongs_to_no_request(make_wrapper: MakeWrapper) -> None:
    """Its threads may have inherited the context of one that has used up its time; what is said by a block counts."""
    wrapper = make_wrapper(resilience={"deadline_seconds": 0.3})
    pool = wrapper.resources.pool
    assert pool is not None
    with _allowance_of_request():
        spend(1)
        with pool.psycopg_pool().connection() as connection:
            connection.execute("SELECT 1")
            with deadline(0.3), pytest.raises(psycopg.OperationalError):
                connection.execute("SELECT pg_sleep(5)")


@pytest.mark.parametrize("options", [{}, {"pool": False}, {"resilience": {"lease": "request"}}])
def test_after_a_transaction_that_ran_out_of_time_the_next_one_is_stored(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, options: dict[str, Any]
) -> None:
    """Autocommit is on again, although no time was left to set it; the error is that of the statement."""
    wrapper = make_wrapper(**options)
    run(wrapper, "CREATE TABLE notes (id int)")
    with pytest.raises(OperationalError) as caught, deadline(0.3), transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT pg_sleep(5)")
    assert classify(caught.value).name == "timeout"
    assert wrapper.get_autocommit()
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "INSERT INTO notes VALUES (1)")
    assert postgres.execute("SELECT id FROM notes", database=wrapper.settings_dict["NAME"]) == [(1,)]
