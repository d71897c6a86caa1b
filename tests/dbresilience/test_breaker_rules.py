"""admission.py: the breaker's rules, with a way to dial of the test's own."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable

import psycopg
import pytest

from dbresilience import DatabaseUnavailable, classify, deadline
from dbresilience import admission as breaker
from dbresilience.admission import Admission
from dbresilience.errors import StatementOverdue
from dbresilience.probe_pace import ProbePace
from tests.support.postgres import wait_until

from .conftest import MakeWrapper, pid_of
from .test_admission import refusal_of
from .test_deadlines import seconds_of


class Dial:
    """Fails with `error`, or hangs until `release` is set."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.calls = 0
        self.release = threading.Event()
        self.release.set()

    def __call__(self) -> None:
        self.calls += 1
        self.release.wait(10)
        if self.error is not None:
            raise self.error


def failure(sqlstate: str | None = None) -> psycopg.OperationalError:
    error = psycopg.OperationalError("made by the test")
    error.sqlstate = sqlstate
    return error


def admission_with(dial: Callable[[], None], *, answered: bool = False) -> Admission:
    return Admission(
        "rules",
        dial,
        refusal=lambda cause: DatabaseUnavailable(str(cause)),
        paused=lambda s: DatabaseUnavailable("paused"),
        answered_since=lambda moment: answered,
    )


@pytest.mark.timed
def test_a_starting_server_is_waited_for() -> None:
    """57P03: as long as the request's own time allows, and no longer."""
    dial = Dial(failure("57P03"))
    admission = admission_with(dial)
    admission.report_outage(failure("57P03"))
    started = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        admission.admit(0.5)
    assert 0.45 < time.monotonic() - started < 0.7
    threading.Timer(0.3, lambda: setattr(dial, "error", None)).start()
    assert seconds_of(lambda: admission.admit(5)) < 0.3 + 0.25
    assert admission.state == "closed"


@pytest.mark.timed
def test_a_probe_that_hangs_holds_nobody_up() -> None:
    """Those who come while it hangs are refused at once; another is tried beside it."""
    dial = Dial(failure())
    dial.release.clear()
    admission = admission_with(dial)
    admission.report_outage(failure())
    time.sleep(0.15)

    def refused() -> None:
        with pytest.raises(DatabaseUnavailable):
            admission.admit(5)

    assert seconds_of(refused) < 0.1
    assert seconds_of(refused) < 0.01
    assert dial.calls == 1
    time.sleep(1)
    refused()
    assert dial.calls == 2
    dial.error = None
    dial.release.set()
    wait_until(lambda: admission.clear, timeout_seconds=1, what="admission")


@pytest.mark.timed
@pytest.mark.parametrize(
    ("cause", "quiet_seconds"),
    [(failure("28P01"), 0.3), (psycopg.OperationalError(os.strerror(errno.ECONNREFUSED)), 0.15)],
    ids=["an old verdict", "nobody listened"],
)
def test_a_probe_that_may_bring_good_news_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, cause: Exception, quiet_seconds: float
) -> None:
    """What was true in the evening says nothing in the morning; where nobody listened, refusals are quick."""
    monkeypatch.setattr(breaker, "STALE_SECONDS", 0.2)
    dial = Dial(None)
    admission = admission_with(dial)
    admission.report_outage(cause)
    time.sleep(quiet_seconds)
    dial.release.clear()
    threading.Timer(0.3, dial.release.set).start()
    assert 0.25 < seconds_of(lambda: admission.admit(5)) < 0.6


def test_probes_that_hang_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is a thread, and a session that a frozen server makes once it thaws."""
    monkeypatch.setattr(breaker, "HANGING_SECONDS", 0.05)
    dial = Dial(failure())
    dial.release.clear()
    admission = admission_with(dial)
    admission.report_outage(failure())
    until = time.monotonic() + 0.6
    while time.monotonic() < until:
        with pytest.raises(DatabaseUnavailable):
            admission.admit(0.1)
        time.sleep(0.01)
    assert dial.calls == breaker.MOST_PROBES
    dial.release.set()


def test_a_suspicion_that_proves_wrong_refuses_nobody() -> None:
    """The server answers the probe: it was one connection's own trouble."""
    admission = admission_with(Dial(None))
    admission.report_suspicion(failure())
    time.sleep(1.2)
    assert admission.clear
    assert admission.opened_total == 0


def test_a_suspicion_is_confirmed_by_silence() -> None:
    """A frozen server takes the connection and says nothing."""
    dial = Dial(None)
    dial.release.clear()
    admission = admission_with(dial)
    admission.report_suspicion(failure())
    wait_until(lambda: admission.state == "open", timeout_seconds=2, what="an open breaker")
    dial.release.set()
    wait_until(lambda: admission.state == "closed", timeout_seconds=1, what="a closed breaker")


def test_a_suspicion_is_refuted_by_any_answer() -> None:
    """A refusal with a code is one; so is what somebody else was told."""
    for admission in (admission_with(Dial(failure("53300"))), admission_with(Dial(failure()), answered=True)):
        admission.report_suspicion(failure())
        time.sleep(0.2)
        assert admission.clear
        admission.report_suspicion(failure())  # the next one is heard


def test_a_probe_that_hangs_proves_nothing_where_others_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own connection may be the one that is in trouble; and the next suspicion is heard."""
    monkeypatch.setattr(breaker, "HANGING_SECONDS", 0.1)
    dial = Dial(None)
    dial.release.clear()
    admission = admission_with(dial, answered=True)
    for suspicions in (1, 2):
        admission.report_suspicion(failure())
        time.sleep(0.2)
        assert dial.calls == suspicions
    assert admission.clear
    assert admission.opened_total == 0
    dial.release.set()


def test_only_an_answer_to_later_questions_closes_the_breaker() -> None:
    """A lease that ends now may have had its last answer before the server froze."""
    dial = Dial(None)
    dial.release.clear()
    admission = admission_with(dial)
    before = time.perf_counter()
    admission.report_suspicion(StatementOverdue("made by the test"))
    wait_until(lambda: admission.state == "open", timeout_seconds=2, what="an open breaker")
    admission.report_answer(before)
    assert admission.state == "open"
    admission.report_answer(time.perf_counter())
    assert admission.state == "closed"
    dial.release.set()


@pytest.mark.timed
def test_a_shorter_pause_takes_the_place_of_a_longer_one() -> None:
    """Also for those who wait already."""
    admission = admission_with(Dial(None))
    admission.pause(30)
    threading.Timer(0.2, admission.pause, args=[0.2]).start()
    assert seconds_of(lambda: admission.admit(5)) < 1


def test_a_probe_does_not_end_a_pause() -> None:
    """It was under way when the operator paused; the server is there still, and is about to go."""
    dial = Dial(None)
    dial.release.clear()
    admission = admission_with(dial)
    admission.report_suspicion(failure())
    admission.report_outage(failure())
    admission.pause(30)
    dial.release.set()
    wait_until(lambda: admission.state == "paused", timeout_seconds=1, what="the end of the outage")
    with pytest.raises(DatabaseUnavailable, match="paused"):
        admission.admit(0.1)
    admission.resume()
    admission.admit(0)


def test_an_error_that_is_answered_is_asked_for_ever_more_rarely() -> None:
    """A wrong password, say: at first many times a second, in the end once."""
    pace, error = ProbePace(), failure("28P01")
    delays = [pace.delay(error, classify(error), now) for now in (0.0, 1.0, 5.0, 60.0)]
    assert delays[0] <= 0.05
    assert 0.1 < delays[1] <= 0.15
    assert 0.75 <= delays[3] <= 1.0


@pytest.mark.timed
def test_a_pause_is_waited_for(make_wrapper: MakeWrapper) -> None:
    """Until it is ended, or the request's time is."""
    wrapper = make_wrapper()
    pid_of(wrapper)
    admission = wrapper.resources.pool.admission  # type: ignore[union-attr]
    admission.pause(60)
    assert wrapper.resources.snapshot().breaker == "paused"
    threading.Timer(0.3, admission.resume).start()
    assert 0.25 < seconds_of(lambda: pid_of(wrapper)) < 0.5
    admission.pause(60)
    with deadline(0.2):
        assert "paused" in str(refusal_of(wrapper))
    admission.pause(0.2)
    assert 0.15 < seconds_of(lambda: pid_of(wrapper)) < 0.5
