"""One pool per process, alias and configuration: the registry that outlives reload, survives fork.

`get_database_resources()` is how everything else reads the state of the database.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.db.backends.postgresql.psycopg_any import IsolationLevel

from . import fork, measures
from .conf import Configuration
from .connection import ResilientConnection
from .health import DatabaseHealth, HealthProbe
from .operators import LONGEST_PAUSE_SECONDS, OrderFile
from .options import DEFAULT_RETRY_AFTER_SECONDS
from .pool import Pool
from .process import keep, of_process
from .snapshot import PoolSnapshot
from .stopping import cancel_statements


class OtherEngine(TypeError):
    """The alias uses another database backend."""


class DatabaseResources:
    """What this process holds for one alias and configuration."""

    def __init__(
        self,
        alias: str,
        configuration: Configuration,
        database: tuple[str, ...],
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
        isolation_level: IsolationLevel,
        orders: OrderFile,
    ) -> None:
        self.alias = alias
        self.configuration = configuration
        self.isolation_level = isolation_level
        self.database = database
        """Host, port and name: which database this is, for closing all that use it."""
        self.pool: Pool | None = None
        if configuration.pooled:
            self.pool = Pool(alias, configuration, connect_arguments, configure, self._release_idle, orders)
        self.orders = orders
        """The file of an operator's orders to all processes of this machine."""
        self.connect_arguments = connect_arguments
        self.probe = HealthProbe(connect_arguments)
        self.inherited = False
        """Whether a forked child has this from its parent and must not use it."""

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers of this moment. Opens nothing; all zero without a pool."""
        if self.pool is not None:
            return self.pool.snapshot()
        return PoolSnapshot(self.alias)

    def health(self, *, timeout_seconds: float = 0.8) -> DatabaseHealth:
        """Ask the server on a connection outside the pool, however many ask.

        Args:
            timeout_seconds: longest time this call takes; then the answer is unhealthy.
        """
        return self.probe.check(timeout_seconds=timeout_seconds)

    def connect(self) -> ResilientConnection:
        """Connect outside the pool; the caller closes the connection.

        Raises:
            psycopg.OperationalError: the server cannot be reached, or refused.
        """
        return ResilientConnection.connect(**self.connect_arguments())

    def pause(self, seconds: float) -> None:
        """Let this process use the database no more: connections are closed, used ones on release.

        Requests wait for a connection as long as they may (`pool.timeout`, the deadline), then get 503.
        ``manage.py dbresilience pause`` does it for all processes of this machine.

        Args:
            seconds: when the pause ends by itself.

        Raises:
            ValueError: `seconds` is 0 or less, or more than 3600.
            ImproperlyConfigured: the alias has no pool.
        """
        if not 0 < seconds <= LONGEST_PAUSE_SECONDS:
            raise ValueError(f"seconds is {seconds!r}: give more than 0, and {LONGEST_PAUSE_SECONDS:.0f} at most.")
        self.pool_or_error().pause(seconds)

    def resume(self) -> None:
        """End this process's pause, whoever ordered it; harmless without one."""
        self.pool_or_error().resume()

    def recycle(self) -> None:
        """Replace this process's connections: idle ones now, used ones on release."""
        self.pool_or_error().recycle()

    def pool_or_error(self) -> Pool:
        """Return the pool.

        Raises:
            ImproperlyConfigured: the alias has none.
        """
        if self.pool is None:
            raise ImproperlyConfigured(
                f"DATABASES[{self.alias!r}] has OPTIONS['pool'] = False: only a pool can be paused or recycled."
            )
        return self.pool

    def _release_idle(self, needy: Pool) -> None:
        """Let this process's other pools on the same server give their idle connections to the one in need."""
        for resources in all_resources():
            if resources.pool not in (None, needy) and resources.database[:2] == self.database[:2]:
                resources.pool.release_idle()

    def close(self, reason: str = "closed", *, wait_seconds: float = 1.0) -> None:
        """Close the pool's connections, used ones on release; the next query opens it again.

        Args:
            reason: for the signal `pool_closed`.
            wait_seconds: how long to wait for each of the pool's threads to end.
        """
        if self.pool is not None:
            self.pool.close(reason, wait_seconds=wait_seconds)


class _Registry:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.entries: dict[tuple[str, Hashable], DatabaseResources] = {}
        self.current: dict[str, Hashable] = {}


def _registry() -> _Registry:
    return of_process("resources", _new_registry)  # type: ignore[no-any-return]


def _new_registry() -> _Registry:
    atexit.register(_close_all_at_exit)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_forget_after_fork)
    return _Registry()


def obtain(alias: str, key: Hashable, create: Callable[[], DatabaseResources]) -> DatabaseResources:
    """Return the resources for `alias` and configuration `key`.

    A new configuration closes the pool of the one before. Whoever still has that one may go on
    with it: two threads with different settings must not end each other's pools in turn.
    """
    registry = _registry()
    with registry.lock:
        before = registry.current.get(alias)
        registry.current[alias] = key
        resources = registry.entries.get((alias, key))
        if resources is not None:
            return resources
        resources = registry.entries[alias, key] = create()
        replaced = registry.entries.get((alias, before))
    if replaced is not None:
        replaced.close("the configuration changed")
    return resources


def close_database(database: tuple[str, ...], reason: str) -> None:
    """Close this process's pools for one database, whatever their alias."""
    for resources in all_resources():
        if resources.database == database:
            resources.close(reason)


def get_database_resources(alias: str = "default") -> DatabaseResources:
    """Return what this process holds for `alias`: its pool, its configuration, its health.

    The same object each time, until the alias is configured differently. Opens no connection.

    Raises:
        django.utils.connection.ConnectionDoesNotExist: no such alias.
        TypeError: the alias uses another database backend.
    """
    wrapper: Any = connections[alias]
    # The class, since an AttributeError within the property would look the same.
    if not hasattr(type(wrapper), "resources"):
        raise OtherEngine(f"DATABASES[{alias!r}] does not use dbresilience. Set its ENGINE to 'dbresilience'.")
    return wrapper.resources  # type: ignore[no-any-return]


def all_resources() -> list[DatabaseResources]:
    """Return what this process holds, for every alias and configuration used so far."""
    registry = _registry()
    with registry.lock:
        return list(registry.entries.values())


def configured_retry_after_seconds() -> int:
    """Return the longest `retry_after_seconds` of this process's aliases; its default if none is used."""
    configured = [resources.configuration.retry_after_seconds for resources in all_resources()]
    return max(configured, default=DEFAULT_RETRY_AFTER_SECONDS)


def _close_all_at_exit() -> None:
    # A thread that is connecting to a frozen server cannot be waited for, and is nobody's business.
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    cancel_statements(resources.pool for resources in all_resources() if resources.pool is not None)
    for resources in all_resources():
        resources.close("the process ends", wait_seconds=0.2)


def _forget_after_fork() -> None:
    registry = _registry()
    registry.lock = threading.RLock()
    inherited = list(registry.entries.values())
    registry.entries.clear()
    registry.current.clear()
    for resources in inherited:
        resources.inherited = True
    measures.forget_in_child()
    fork.forget(resources.pool for resources in inherited if resources.pool is not None)
    wrapper: Any
    for wrapper in connections.all(initialized_only=True):
        if getattr(wrapper, "begins_later", False):  # no lease leads to it
            wrapper.forget_connection()


keep(globals(), "DatabaseResources", "OtherEngine")
