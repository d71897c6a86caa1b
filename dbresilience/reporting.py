"""Once a second a process hands on what it has measured: in one daemon thread, which asks nothing of the database.

The thread begins with the first pool of the process and ends, after a last turn, when the process exits. A forked
child has a thread of its own once it opens a pool.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from . import measures, signals
from .process import of_process

EVERY_SECONDS = 1.0

_ENDING_SECONDS = 2.0
"""How long the exit of the process waits for a turn that is running."""

reporting_log = logging.getLogger("dbresilience.reporting")

Turn = Callable[[], None]


class _Process:
    """What outlives a reload of this module."""

    def __init__(self) -> None:
        self.turns: dict[str, Turn] = {}
        self.endings: dict[str, Turn] = {}
        self.failing: set[str] = set()
        self.ended = False
        self.begin_anew()
        atexit.register(_end)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.begin_anew)

    def begin_anew(self) -> None:
        self.lock = threading.RLock()  # a garbage collection within it may have something to tell
        self.turn_lock = threading.Lock()
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None


def _process() -> _Process:
    return of_process(__name__, _Process)  # type: ignore[no-any-return]


def each_second(name: str, turn: Turn) -> None:
    """Let `turn` be called once a second, after `measures.drain()`; a second one of the same name takes its place.

    It must not ask the database. One that raises is logged and called again a second later.
    """
    _process().turns[name] = turn


def no_longer(name: str) -> None:
    """Call that one no more; harmless if there is none of that name."""
    _process().turns.pop(name, None)


def after_last_turn(name: str, ending: Turn) -> None:
    """Let `ending` be called when the process exits, after the last turn; a second one of the same name replaces it."""
    _process().endings[name] = ending


def report() -> None:
    """Take one turn now."""
    process = _process()
    with process.turn_lock:  # so that each is called by one thread at a time
        for name, turn in [("measures", measures.drain), *process.turns.items()]:
            try:
                turn()
            except Exception:
                if name not in process.failing:  # or it would be logged each second
                    reporting_log.exception("%s could not be reported", name)
                process.failing.add(name)
            else:
                process.failing.discard(name)


def begin() -> None:
    """Begin to report, if this process does not yet."""
    process = _process()
    if process.ended or (process.thread is not None and process.thread.is_alive()):
        return
    with process.lock:
        if process.thread is not None and process.thread.is_alive():
            return
        thread = threading.Thread(target=_run, args=(process.stopping,), name="dbresilience-reporting", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter ends, or there can be no more threads
            return
        process.thread = thread


def _run(stopping: threading.Event) -> None:
    while not stopping.wait(EVERY_SECONDS):
        report()


def _end() -> None:
    process = _process()
    process.ended = True
    process.stopping.set()
    if process.thread is not None:
        process.thread.join(_ENDING_SECONDS)
    if process.turn_lock.acquire(timeout=_ENDING_SECONDS):
        process.turn_lock.release()
        report()
    for name, ending in process.endings.items():
        try:
            ending()
        except Exception:
            reporting_log.exception("%s could not be ended", name)


def _begin_with_pool(sender: str, **details: Any) -> None:
    begin()


def install() -> None:
    """Begin with the first pool of this process, and of each forked child. Repeating it is harmless."""
    _process()  # whose last turn then comes after the pools were closed
    signals.pool_opened.disconnect(dispatch_uid="dbresilience.reporting", sender=None)
    signals.pool_opened.connect(_begin_with_pool, weak=False, dispatch_uid="dbresilience.reporting")
