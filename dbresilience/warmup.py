"""Warm-up: a process that serves opens its first connection and asks its first query before anybody waits for them.

It begins when Django has made the handler of an application server, in a thread of its own beside the rest of the
start. Requests that come early wait for its end, inside their deadline and before BEGIN (see `admission`). Management
commands have no such handler and stay cold. A server that loads the application and then forks hands its warm-up on:
its workers warm up, and it keeps no connection itself.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.base import BaseHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.db import connections, router
from django.utils.module_loading import import_string

from . import signals
from .deadlines import deadline
from .process import of_process
from .resources import DatabaseResources, all_resources, get_database_resources
from .signals import emit
from .wrapping import wrap_once

ATTEMPTS = 3
"""How often each phase is tried."""
BETWEEN_ATTEMPTS_SECONDS = 0.5
REHEARSALS = 9
"""How often at most it asks again: Python runs code quickly that it has run some eight times (PEP 659)."""
REHEARSING_SECONDS = 0.1
"""For how long it begins another, beside requests that are served."""
QUICK_SECONDS = 0.5
"""Who took longer the first time is not asked again."""
_KNOWN_AFTER_SECONDS = 0.05
LONGEST_SECONDS = 10.0
"""When early requests stop waiting for a warm-up that has not ended."""
FORK_WAITS_SECONDS = LONGEST_SECONDS
"""How long a fork waits for one: a module that it imports at that moment could never be imported by the child."""

logger = logging.getLogger("dbresilience.connections")


class _Process:
    """What is known of this process: whether it serves, and whether anybody has asked it anything."""

    def __init__(self) -> None:
        self.serves = False
        self.was_asked = False
        self.has_handed_on = False
        self.threads: list[threading.Thread] = []


def install() -> None:
    """Let the handlers of application servers begin it. Repeating it is harmless."""
    wrap_once(BaseHandler, "load_middleware", _beginning)


def _beginning(load_middleware: Callable[..., None]) -> Callable[..., None]:
    def load(self: BaseHandler, *args: Any, **kwargs: Any) -> None:
        load_middleware(self, *args, **kwargs)
        # Django's test client has a handler of another class.
        if isinstance(self, (WSGIHandler, ASGIHandler)) and not _state().serves:
            _state().serves = True
            request_started.connect(_note_request, dispatch_uid="dbresilience.warmup")
            if hasattr(os, "register_at_fork"):
                all_resources()  # so that a child has forgotten its parent's connections before it warms up
                of_process("warm-up at fork", _hand_on_at_fork)
            begin()

    return load


def _state() -> _Process:
    return of_process("warm-up", _Process)  # type: ignore[no-any-return]


def _note_request(**kwargs: Any) -> None:
    _state().was_asked = True
    request_started.disconnect(dispatch_uid="dbresilience.warmup")


def _hand_on_at_fork() -> None:
    # Late, since the hook before a fork that is registered last is called first: before others take their locks.
    os.register_at_fork(before=_finish, after_in_parent=_leave_it_to_workers, after_in_child=_begin_in_worker)


def _is_preloaded() -> bool:
    """Whether this process serves and was never asked anything: then who is forked from it is meant to be asked."""
    return _state().serves and not _state().was_asked


def _finish() -> None:
    """Wait for a warm-up that runs; one that is handed on is not tried again."""
    state = _state()
    state.has_handed_on = _is_preloaded()
    until = monotonic() + FORK_WAITS_SECONDS
    for thread in state.threads:
        if thread is not threading.current_thread():
            thread.join(max(until - monotonic(), 0))


def _leave_it_to_workers() -> None:
    if not _is_preloaded():
        return
    for alias in settings.DATABASES:
        resources = _resources_to_warm(alias)
        if resources is not None:
            _let_go(resources)


def _let_go(resources: DatabaseResources) -> None:
    resources.close("its workers connect by themselves", wait_seconds=0)


def _begin_in_worker() -> None:
    _state().has_handed_on, _state().threads = False, []
    if _is_preloaded():
        begin(_is_worker)


def _is_worker() -> bool:
    """Whether this child is a worker of a server and not a program that multiprocessing has started."""
    sleep(_KNOWN_AFTER_SECONDS)
    return multiprocessing.parent_process() is None


def begin(is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Warm up every alias that wants it, each in a thread; returns at once."""
    for alias in settings.DATABASES:
        resources = _resources_to_warm(alias)
        if resources is None or resources.pool is None:
            continue
        resources.pool.admission.begin_warm_up(LONGEST_SECONDS)
        thread = threading.Thread(
            target=_warm_up, args=[resources, is_wanted], name=f"dbresilience-{alias}-warm-up", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # there can be no more threads, and requests are served all the same
            resources.pool.admission.end_warm_up("failed")
        else:
            _state().threads.append(thread)


def _resources_to_warm(alias: str) -> DatabaseResources | None:
    try:
        resources = get_database_resources(alias)
    except TypeError:
        return None
    return resources if resources.configuration.warm_up and resources.pool is not None else None


def _warm_up(resources: DatabaseResources, is_wanted: Callable[[], bool]) -> None:
    pool = resources.pool
    assert pool is not None
    began, outcome, is_quick = monotonic(), "failed", False
    try:
        if not is_wanted():
            outcome = "off"
            return
        pool.admission.pass_while_warming()
        with deadline(LONGEST_SECONDS):
            if _succeeds(resources, _ask_server, began):
                asked_at = monotonic()
                if _succeeds(resources, _ask_as_a_request_would, began):
                    outcome, is_quick = "done", monotonic() - asked_at <= QUICK_SECONDS
    finally:
        with suppress(Exception):
            connections[resources.alias].close()
        pool.admission.end_warm_up(outcome)
        if outcome != "off":
            emit(signals.pool_warmed, resources.alias, outcome=outcome, seconds=monotonic() - began)
    if is_quick:
        _rehearse(resources)
    if _state().has_handed_on and not _state().was_asked:
        _let_go(resources)  # what it has opened since its process was forked


def _succeeds(resources: DatabaseResources, phase: Callable[[DatabaseResources], None], began: float) -> bool:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            phase(resources)
        except Exception as error:  # whatever it is, the process serves
            level = logging.WARNING if attempt == ATTEMPTS else logging.DEBUG
            logger.log(level, "pool %s: attempt %s of the warm-up failed: %s", resources.alias, attempt, error)
            if _state().has_handed_on:
                return False
            left = LONGEST_SECONDS - (monotonic() - began)
            if attempt < ATTEMPTS and left > BETWEEN_ATTEMPTS_SECONDS:
                sleep(BETWEEN_ATTEMPTS_SECONDS)
        else:
            return True
    return False


def _rehearse(resources: DatabaseResources) -> None:
    """Ask again what a request would, until the way is quick."""
    until = monotonic() + REHEARSING_SECONDS
    with suppress(Exception), deadline(QUICK_SECONDS):  # it has succeeded, which is what counts
        for _ in range(REHEARSALS):
            if monotonic() >= until:
                break
            _ask_as_a_request_would(resources)
    with suppress(Exception):
        connections[resources.alias].close()


def _ask_server(resources: DatabaseResources) -> None:
    with connections[resources.alias].cursor() as cursor:
        cursor.execute("SELECT 1")


def _ask_as_a_request_would(resources: DatabaseResources) -> None:
    given = resources.configuration.warm_up_with
    if given is not None:
        (import_string(given) if isinstance(given, str) else given)()
    elif apps.is_installed("django.contrib.auth"):
        users = get_user_model()._base_manager
        if router.db_for_read(users.model) == resources.alias:
            users.using(resources.alias).order_by().first()
