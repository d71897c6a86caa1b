"""deadlines.py and overdue.py: on this machine's own clock, against slow, frozen and silent servers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.handlers.base import BaseHandler
from django.db import OperationalError, transaction
from django.http import HttpResponse, StreamingHttpResponse
from django.test import RequestFactory

from dbresilience import OutOfTime, classify, deadline, signals
from dbresilience.deadlines import _allowance_of_request, current_allowance
from tests.support.postgres import ThrowawayPostgres, wait_until

from .conftest import MakeWrapper, in_thread, pid_of, works


def seconds_of(work: Callable[[], object]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started


def sleep(wrapper: object, seconds: float) -> None:
    with wrapper.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute("SELECT pg_sleep(%s)", [seconds])


def run(wrapper: object, query: str) -> None:
    with wrapper.cursor() as cursor:  # type: ignore[attr-defined]
        cursor.execute(query)


@pytest.mark.timed
def test_a_slow_statement_is_cancelled_and_its_connection_stays(make_wrapper: MakeWrapper) -> None:
    """The server is well and says so: 504, and nobody else pays for it."""
    wrapper = make_wrapper()
    pid = pid_of(wrapper)
    started = time.monotonic()
    with deadline(0.5), pytest.raises(OperationalError) as caught:
        sleep(wrapper, 10)
    assert 0.45 < time.monotonic() - started < 0.7
    assert classify(caught.value).name == "timeout"
    assert "deadline" in "".join(caught.value.__cause__.__notes__)  # type: ignore[union-attr]
    assert pid_of(wrapper) == pid
    assert wrapper.resources.pool.admission.opened_total == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("block", [lambda: deadline(0.3), _allowance_of_request], ids=["block", "request"])
def test_the_deadline_that_was_in_force_is_told(
    make_wrapper: MakeWrapper, block: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """That of the block, or else that of the alias."""
    wrapper = make_wrapper(resilience={"deadline_seconds": 0.4})
    told: list[float] = []

    def note(deadline_seconds: float, **_: object) -> None:
        told.append(deadline_seconds)

    signals.statement_overdue.connect(note)
    with block(), caplog.at_level("WARNING"), pytest.raises(OperationalError):
        sleep(wrapper, 5)
    signals.statement_overdue.disconnect(note)
    assert told == [0.4 if block is _allowance_of_request else 0.3]
    assert f"deadline of {told[0]} s" in caplog.text


@pytest.mark.timed
def test_a_frozen_server_costs_the_deadline_and_no_more(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres) -> None:
    """Nothing is answered, not even the request to cancel: 503, the breaker opens; all is well again after."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    closed: list[str] = []

    def note(reason: str, **_: object) -> None:
        closed.append(reason)

    signals.connection_closed.connect(note)
    postgres.freeze()
    started = time.monotonic()
    with deadline(0.5), pytest.raises(OperationalError) as caught:
        pid_of(wrapper)
    signals.connection_closed.disconnect(note)
    assert closed == ["deadline_exceeded"]
    assert 0.45 < time.monotonic() - started < 0.75
    assert (classify(caught.value).name, classify(caught.value).status) == ("deadline_exceeded", 503)
    assert wrapper.connection is None
    admission = wrapper.resources.pool.admission  # type: ignore[union-attr]
    wait_until(lambda: admission.state == "open", timeout_seconds=2, what="an open breaker")

    def refused() -> None:
        with pytest.raises(OperationalError):
            pid_of(wrapper)

    assert sorted(seconds_of(refused) for _ in range(20))[10] < 0.05
    postgres.thaw()
    wait_until(lambda: works(wrapper), timeout_seconds=0.5, what="an answer")


def test_a_deadline_is_for_all_that_is_waited_for_together(make_wrapper: MakeWrapper) -> None:
    """Three statements that would each be in time are not; what follows is refused before it is sent."""
    wrapper = make_wrapper()
    with deadline(0.6):
        sleep(wrapper, 0.25)
        sleep(wrapper, 0.25)
        with pytest.raises(OperationalError):
            sleep(wrapper, 0.25)
        with pytest.raises(OutOfTime) as caught:
            pid_of(wrapper)
        assert classify(caught.value).status == 504


def test_time_without_the_database_is_free(make_wrapper: MakeWrapper) -> None:
    """A reply is stored although its model took its time."""
    wrapper = make_wrapper()
    with deadline(0.3):
        pid_of(wrapper)
        time.sleep(0.4)
        pid_of(wrapper)


@pytest.mark.timed
def test_the_wait_for_a_connection_counts(make_wrapper: MakeWrapper) -> None:
    """A full pool costs no more than the deadline, whatever its own time-out is."""
    holder = make_wrapper(pool={"max_size": 1, "timeout": 10})
    pid_of(holder)
    asker = make_wrapper(pool={"max_size": 1, "timeout": 10})
    started = time.monotonic()
    with holder.pinned(), deadline(0.3), pytest.raises(OperationalError, match=r"within 0\.3 s"):
        pid_of(asker)
    assert time.monotonic() - started < 0.6


def test_a_transaction_that_runs_out_of_time_is_rolled_back(make_wrapper: MakeWrapper) -> None:
    """ROLLBACK has time of its own; the connection goes on."""
    wrapper = make_wrapper()
    pid = pid_of(wrapper)
    with wrapper.cursor() as cursor:
        cursor.execute("CREATE TABLE notes (id int)")

    @transaction.atomic(using=wrapper.alias)
    def note_slowly() -> None:
        with wrapper.cursor() as cursor:
            cursor.execute("INSERT INTO notes VALUES (1)")
        sleep(wrapper, 5)

    with deadline(0.4), pytest.raises(OperationalError):
        note_slowly()
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT count(*), pg_backend_pid() FROM notes")
        assert cursor.fetchone() == (0, pid)


@pytest.mark.parametrize("options", [{}, {"pool": False}, {"resilience": {"lease": "request"}}])
def test_a_savepoint_that_runs_out_of_time_is_undone_alone(make_wrapper: MakeWrapper, options: dict[str, Any]) -> None:
    """The transaction around it goes on; undoing has time of its own."""
    wrapper = make_wrapper(**options)
    run(wrapper, "CREATE TABLE notes (id int)")
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "INSERT INTO notes VALUES (1)")
        with (
            pytest.raises(OperationalError, match="cancel"),
            deadline(0.3),
            transaction.atomic(using=wrapper.alias),
        ):
            run(wrapper, "INSERT INTO notes VALUES (2)")
            sleep(wrapper, 5)
        run(wrapper, "INSERT INTO notes VALUES (3)")
    with wrapper.cursor() as cursor:
        cursor.execute("SELECT id FROM notes")
        assert cursor.fetchall() == [(1,), (3,)]


@pytest.mark.timed
def test_a_savepoint_on_a_frozen_server_costs_the_deadline_and_no_more(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres
) -> None:
    """There is no connection any more on which anything could be undone; the transaction is over."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    with pytest.raises(OperationalError), transaction.atomic(using=wrapper.alias):
        postgres.freeze()
        started = time.monotonic()
        with contextlib.suppress(OperationalError), deadline(0.3):
            with transaction.atomic(using=wrapper.alias):
                pid_of(wrapper)
        assert time.monotonic() - started < 0.6
        postgres.thaw()
        pid_of(wrapper)
    wait_until(lambda: works(wrapper), timeout_seconds=1, what="an answer")


def test_others_are_not_held_up(make_wrapper: MakeWrapper) -> None:
    """The deadline of one is nothing to the others."""
    wrapper = make_wrapper(pool={"max_size": 4})
    pid_of(wrapper)
    taken: list[float] = []

    def others() -> None:
        other = make_wrapper(pool={"max_size": 4})
        taken.extend(seconds_of(lambda: pid_of(other)) for _ in range(20))
        other.close()

    thread = in_thread(others)
    with deadline(0.5), pytest.raises(OperationalError):
        sleep(wrapper, 5)
    thread.join(5)
    assert len(taken) == 20
    assert max(taken) < 0.3


@pytest.mark.timed
def test_a_request_has_the_deadline_of_its_alias(make_wrapper: MakeWrapper) -> None:
    """Without any middleware."""
    wrapper = make_wrapper(resilience={"deadline_seconds": 0.4})

    class Handler(BaseHandler):
        def _get_response(self, request: object) -> HttpResponse:
            with pytest.raises(OperationalError):
                sleep(wrapper, 5)
            return HttpResponse("done")

    handler = Handler()
    handler.load_middleware()
    handler._middleware_chain = handler._get_response  # type: ignore[attr-defined]
    started = time.monotonic()
    assert handler.get_response(RequestFactory().get("/")).status_code == 200
    assert time.monotonic() - started < 0.8
    assert current_allowance() is None


def test_a_streamed_response_has_the_whole_of_it_for_each_statement(make_wrapper: MakeWrapper) -> None:
    """It may go on for hours; a statement of it that is not answered ends nevertheless."""
    wrapper = make_wrapper(resilience={"deadline_seconds": 0.5})
    with _allowance_of_request() as keep_for:
        keep_for(StreamingHttpResponse([]))
    for _ in range(4):
        sleep(wrapper, 0.2)
    with pytest.raises(OperationalError):
        sleep(wrapper, 5)
    current_allowance().ended = True  # type: ignore[union-attr]
    sleep(wrapper, 0.6)


def test_no_deadline_lifts_the_one_of_the_request(make_wrapper: MakeWrapper) -> None:
    """For a long report."""
    wrapper = make_wrapper()
    with deadline(0.2), deadline(None):
        sleep(wrapper, 0.4)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
def test_nonsense_is_refused(seconds: float) -> None:
    """With the value in the text, where it is said."""
    with pytest.raises(ValueError, match="more than 0"):
        deadline(seconds)


@pytest.mark.parametrize("mistake", ["3", True, lambda: 1])
def test_what_is_no_number_is_refused(mistake: Any) -> None:
    """A decorator without its seconds, too."""
    with pytest.raises(TypeError, match="takes seconds"):
        deadline(mistake)


def test_what_would_be_over_before_it_runs_is_refused() -> None:
    """A coroutine and a generator."""

    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    for function in (coroutine, generator):
        with pytest.raises(TypeError, match="cannot decorate"):
            deadline(1)(function)


def test_a_function_with_a_deadline(make_wrapper: MakeWrapper) -> None:
    """Each call has the whole time; it may call itself."""
    wrapper = make_wrapper()

    @deadline(0.4)
    def nap(depth: int) -> None:
        sleep(wrapper, 0.25)
        if depth:
            nap(depth - 1)
            with pytest.raises(OperationalError):
                sleep(wrapper, 0.25)

    nap(1)
    assert current_allowance() is None
