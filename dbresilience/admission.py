"""May this request have a connection? At once, after a wait, or not now: a breaker and the operator's pause.

The breaker opens when the database cannot be reached. Then nobody dials but a *probe*, in a
thread of its own and only when somebody asks; everybody else is refused at once with the cause that was found
last. What passes in a moment (starting, full, a standby not yet promoted) is worth a wait. What only looks like an
outage (a statement that was never answered) is a *suspicion*, for a probe to confirm.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from time import monotonic, perf_counter

import psycopg

from . import signals
from .dialling import nobody_listened
from .errors import AcquireTimeout, DatabaseUnavailable, StatementOverdue, classify
from .meanings import CANNOT_CONNECT, NO_WRITER, SHUTTING_DOWN, STARTING, Classification
from .operators import is_at_work
from .probe_pace import FULL, LONGEST_DELAY_SECONDS, ProbePace
from .signals import emit

GLANCE_SECONDS = 0.04
"""How long a request waits for a probe that has just begun; most have succeeded or failed by then."""
STALE_SECONDS = 10.0
"""Age of a verdict that is no longer one, as after a quiet night: whoever asks then waits for a probe."""
HANGING_SECONDS = 1.0
"""When a probe hangs: a suspicion is confirmed, nobody waits for it longer, and another may start beside it."""
MOST_PROBES = 3
_SILENCE = (StatementOverdue, AcquireTimeout, psycopg.errors.ConnectionTimeout)
WORTH_A_PROBE = FULL | {NO_WRITER.name, SHUTTING_DOWN.name}
"""Troubles that pass in a moment: whoever comes waits for the next probe."""


class Admission:
    """Lets requests pass to one pool, or not.

    Args:
        alias: names the pool in signals.
        dial: opens a connection, for the next generation if there is need of one; raises why it could not.
        refusal: makes the exception for a request that is refused, from its cause.
        paused: makes the one for a request that waited in vain for the end of a pause.
        answered_since: whether the server has answered anybody since a moment, by `time.perf_counter`.
        opened: called when the breaker has opened.
    """

    def __init__(
        self,
        alias: str,
        dial: Callable[[], None],
        refusal: Callable[[Exception], DatabaseUnavailable],
        paused: Callable[[float], DatabaseUnavailable],
        answered_since: Callable[[float], bool],
        opened: Callable[[], None] = lambda: None,
    ) -> None:
        self.clear = True
        """Whether everybody may pass; the only thing that is looked at for each lease."""
        self.cause: Exception | None = None
        """Why the breaker is open; None while it is closed."""
        self.meaning: Classification = CANNOT_CONNECT
        self.opened_total = 0
        self._alias = alias
        self._dial = dial
        self._refusal = refusal
        self._paused = paused
        self._answered_since = answered_since
        self._when_opened = opened
        self._changed = threading.Condition()
        self._opened_at = 0.0
        self._paused_until = 0.0
        self._probes = 0
        self._probe_began_at = 0.0
        self._probe_worth_waiting_seconds = GLANCE_SECONDS
        self._probes_ended = 0
        self._suspicion: Exception | None = None
        self._verdict_at = 0.0
        self._next_probe_at = 0.0
        self._suspected_at = 0.0
        self._pace = ProbePace()
        self._warm_up = "off"
        self._warming_until = 0.0
        self._warming_thread: int | None = None

    def _may_all_pass(self, now: float) -> bool:
        return self.cause is None and now >= self._paused_until and now >= self._warming_until

    @property
    def warm_up(self) -> str:
        """``off``, ``running``, ``done`` or ``failed``; one that nobody waits for any more has failed."""
        is_late = self._warm_up == "running" and monotonic() >= self._warming_until
        return "failed" if is_late else self._warm_up

    @property
    def state(self) -> str:
        """``closed``, ``open`` (the database is away) or ``paused``."""
        if self.cause is not None:
            return "open"
        return "paused" if self.is_paused else "closed"

    @property
    def is_paused(self) -> bool:
        """Whether an operator lets requests wait, be the database away or not."""
        return monotonic() < self._paused_until

    # A request

    def admit(self, seconds: float) -> None:
        """Return when a connection may be tried for; wait for that no longer than `seconds`.

        Raises:
            DatabaseUnavailable: not now; the cause is attached.
        """
        began = monotonic()
        deadline = began + seconds
        with self._changed:
            ended_before = self._probes_ended
            while not self.clear:
                now = monotonic()
                # Before the breaker: what is away in a pause is away on purpose.
                if now < self._paused_until and not is_at_work():
                    if now >= deadline:
                        raise self._paused(now - began)
                    self._changed.wait(min(deadline, self._paused_until) - now)
                    continue
                if self.cause is None:
                    if now < min(deadline, self._warming_until) and get_ident() != self._warming_thread:
                        self._changed.wait(min(deadline, self._warming_until) - now)
                        continue
                    self.clear = self._may_all_pass(now)
                    return
                self._start_probe_if_due(now)
                until = min(deadline, self._patience(now, self._probes_ended == ended_before, deadline))
                if now >= until:
                    raise self._refusal(self.cause) from self.cause
                self._changed.wait(min(until, max(self._due_at(), now + GLANCE_SECONDS)) - now)

    def _patience(self, now: float, no_news: bool, deadline: float) -> float:
        """Until when a request should wait, knowing what is known."""
        if self.meaning.name == STARTING.name:
            return deadline
        if no_news and self.meaning.name in WORTH_A_PROBE:
            return deadline
        if no_news and self._probes:
            return self._probe_began_at + self._probe_worth_waiting_seconds
        return now

    # The breaker

    def report_outage(self, cause: Exception) -> None:
        """Open the breaker: there is proof that nobody can have a connection now."""
        with self._changed:
            opened = self._open(cause)
        if opened:
            self._tell_opened(cause)

    def report_answer(self, moment: float) -> None:
        """Close a breaker that silence had opened: at `moment` (`time.perf_counter`) the server answered somebody."""
        with self._changed:
            if moment <= self._suspected_at or not isinstance(self.cause, _SILENCE):
                return
            self.cause = None
            self.clear = self._may_all_pass(monotonic())
            open_seconds = monotonic() - self._opened_at
            self._changed.notify_all()
        emit(signals.breaker_closed, self._alias, open_seconds=open_seconds)

    def _tell_opened(self, cause: Exception) -> None:
        emit(signals.breaker_opened, self._alias, cause=cause, classification=self.meaning)
        self._when_opened()

    def report_suspicion(self, cause: Exception) -> None:
        """Let a probe find out whether the database is away; the breaker opens if it fails or hangs."""
        with self._changed:
            if self.cause is not None or self._suspicion is not None:
                return
            self._suspicion, self._suspected_at = cause, perf_counter()
            self._start_probe(monotonic())
        timer = threading.Timer(HANGING_SECONDS, self._confirm_suspicion, args=[cause])
        timer.daemon = True
        with suppress(RuntimeError):  # the interpreter ends, or there can be no more threads
            timer.start()

    def _confirm_suspicion(self, cause: Exception) -> None:
        if self._suspicion is not cause:
            return
        if self._answered_since(self._suspected_at):
            self._suspicion = None
        else:
            self.report_outage(cause)

    def _open(self, cause: Exception) -> bool:
        self._suspicion = None
        if self.cause is not None:
            return False
        now = monotonic()
        self.cause, self.meaning, self.clear = cause, classify(cause), False
        self.opened_total += 1
        self._opened_at = self._verdict_at = now
        self._suspected_at = perf_counter()
        self._pace = ProbePace()
        self._next_probe_at = now + self._pace.delay(cause, self.meaning, now)
        return True

    def _due_at(self) -> float:
        if self._probes >= MOST_PROBES:
            return float("inf")
        return self._probe_began_at + HANGING_SECONDS if self._probes else self._next_probe_at

    def _start_probe_if_due(self, now: float) -> None:
        if now >= self._due_at():
            is_stale = now - self._verdict_at > STALE_SECONDS
            # Where nothing listened, a probe that is not refused at once is good news.
            expects_refusal = self.cause is not None and nobody_listened(self.cause)
            self._probe_worth_waiting_seconds = HANGING_SECONDS if is_stale or expects_refusal else GLANCE_SECONDS
            self._start_probe(now)

    def _start_probe(self, now: float) -> None:
        self._probes += 1
        self._probe_began_at = now
        try:
            threading.Thread(target=self._probe, name=f"dbresilience-{self._alias}-probe", daemon=True).start()
        except RuntimeError:  # the interpreter ends, or there can be no more threads
            self._probes -= 1
            self._suspicion = None
            self._next_probe_at = now + LONGEST_DELAY_SECONDS

    def _probe(self) -> None:
        cause: Exception | None = None
        try:
            self._dial()
        except Exception as error:
            cause = error
        with self._changed:
            now = monotonic()
            self._probes -= 1
            self._probes_ended += 1
            self._verdict_at = now
            was_open, opened = self.cause is not None, False
            if cause is None:
                self.cause = self._suspicion = None
                self.clear = self._may_all_pass(now)
            elif was_open:
                self.cause, self.meaning = cause, classify(cause)
                self._next_probe_at = now + self._pace.delay(cause, self.meaning, now)
            elif self._suspicion is not None:
                # An answer with a code is one, and others may have had theirs: then the server is not silent.
                if getattr(cause, "sqlstate", None) is None and not self._answered_since(self._suspected_at):
                    opened = self._open(cause)
                self._suspicion = None
            self._changed.notify_all()
        if opened and cause is not None:
            self._tell_opened(cause)
        elif was_open and cause is None:
            emit(signals.breaker_closed, self._alias, open_seconds=now - self._opened_at)

    # The start

    def begin_warm_up(self, seconds: float) -> None:
        """Let requests wait for up to `seconds`, or until `end_warm_up()`."""
        with self._changed:
            self._warm_up, self._warming_until, self.clear = "running", monotonic() + seconds, False

    def pass_while_warming(self) -> None:
        """Let this thread pass, since it is the one that warms up."""
        self._warming_thread = get_ident()

    def end_warm_up(self, outcome: str) -> None:
        """Let everybody go on, whatever came of it."""
        with self._changed:
            self._warm_up, self._warming_until, self._warming_thread = outcome, 0.0, None
            self.clear = self._may_all_pass(monotonic())
            self._changed.notify_all()

    # The operator

    def pause(self, seconds: float) -> None:
        """Let requests wait for up to `seconds`, or until `resume()`."""
        with self._changed:
            self._paused_until = monotonic() + seconds
            self.clear = False
            self._changed.notify_all()  # it may end sooner than the one before
        emit(signals.pool_paused, self._alias, seconds=seconds)

    def resume(self) -> None:
        """End a pause; harmless without one."""
        with self._changed:
            was_paused, self._paused_until = monotonic() < self._paused_until, 0.0
            self.clear = self._may_all_pass(monotonic())
            self._changed.notify_all()
        if was_paused:
            emit(signals.pool_resumed, self._alias)

    def forget_threads(self) -> None:
        """In a forked child: neither the probe nor those who wait exist here."""
        self._changed = threading.Condition()
        self._probes = 0
