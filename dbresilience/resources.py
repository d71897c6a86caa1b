"""One pool per process, alias and configuration: the registry that outlives reload, survives fork.

`get_database_resources()` is how everything else reads the state of the database.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import types
from collections.abc import Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any

from django.db import connections

from .conf import Configuration
from .health import DatabaseHealth, HealthProbe
from .pool import Pool
from .snapshot import PoolSnapshot

if TYPE_CHECKING:
    from .connection import ResilientConnection


class DatabaseResources:
    """What this process holds for one alias and configuration."""

    def __init__(
        self,
        alias: str,
        configuration: Configuration,
        database: tuple[str, ...],
        connect_arguments: Callable[[], Mapping[str, Any]],
        configure: Callable[[ResilientConnection], None],
    ) -> None:
        self.alias = alias
        self.configuration = configuration
        self.database = database
        """Host, port and name: which database this is, for closing all that use it."""
        self.pool = Pool(alias, configuration, connect_arguments, configure) if configuration.pooled else None
        self.probe = HealthProbe(connect_arguments)
        self.retired = False

    def snapshot(self) -> PoolSnapshot:
        """Return the pool's numbers of this moment. Opens nothing; all zero without a pool."""
        if self.pool is not None:
            return self.pool.snapshot()
        return PoolSnapshot(self.alias)

    def health(self, *, timeout_seconds: float = 0.8) -> DatabaseHealth:
        """Ask the server on a connection outside the pool, at most once a second.

        Args:
            timeout_seconds: longest time this call takes; then the answer is unhealthy.
        """
        return self.probe.check(timeout_seconds=timeout_seconds)

    def close(self, reason: str = "closed", *, retire: bool = False) -> None:
        """Close the pool's connections, used ones on release."""
        self.retired = self.retired or retire
        if self.pool is not None:
            self.pool.close(reason, retire=retire)


class _Registry(types.ModuleType):
    """Lives in `sys.modules` under its own name, so re-importing this module finds it again."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.lock = threading.RLock()
        self.entries: dict[str, tuple[Hashable, DatabaseResources]] = {}
        self.inherited: list[DatabaseResources] = []


_NAME = "_dbresilience_process"


def _registry() -> Any:
    found = sys.modules.get(_NAME)
    if found is None:
        created = _Registry(_NAME)
        found = sys.modules.setdefault(_NAME, created)
        if found is created:
            atexit.register(_close_all_at_exit)
            if hasattr(os, "register_at_fork"):
                os.register_at_fork(after_in_child=_forget_after_fork)
    return found


def obtain(alias: str, key: Hashable, create: Callable[[], DatabaseResources]) -> DatabaseResources:
    """Return the resources for `alias` and configuration `key`; retire those of another key."""
    registry = _registry()
    with registry.lock:
        found = registry.entries.get(alias)
        if found is not None and found[0] == key and not found[1].retired:
            return found[1]  # type: ignore[no-any-return]
        if found is not None:
            found[1].close("the configuration changed", retire=True)
        resources = create()
        registry.entries[alias] = (key, resources)
        return resources


def close_database(database: tuple[str, ...], reason: str) -> None:
    """Close this process's pools for one database, whatever their alias."""
    registry = _registry()
    with registry.lock:
        entries = [resources for _, resources in registry.entries.values()]
    for resources in entries:
        if resources.database == database:
            resources.close(reason)


def get_database_resources(alias: str = "default") -> DatabaseResources:
    """Return what this process holds for `alias`: its pool, its configuration, its health.

    The same object each time, until the alias is configured differently. Opens no connection.

    Raises:
        django.utils.connection.ConnectionDoesNotExist: no such alias.
        TypeError: the alias uses another database backend.
    """
    resources = getattr(connections[alias], "resources", None)
    if resources is None:
        raise TypeError(f"DATABASES[{alias!r}] does not use dbresilience. Set its ENGINE to 'dbresilience'.")
    return resources  # type: ignore[no-any-return]


def all_resources() -> list[DatabaseResources]:
    """Return what this process holds, for every alias used so far."""
    registry = _registry()
    with registry.lock:
        return [resources for _, resources in registry.entries.values()]


def _close_all_at_exit() -> None:
    for resources in all_resources():
        resources.close("the process ends", retire=True)


def _forget_after_fork() -> None:
    """Drop the parent's connections in a child without a byte on the wire.

    Closing them would send Terminate on the parent's sessions. Their descriptors are pointed at
    the null device instead, so not even a destructor can reach the server.
    """
    registry = _registry()
    registry.lock = threading.RLock()
    entries = [resources for _, resources in registry.entries.values()]
    registry.entries.clear()
    # Kept, because the destructors of psycopg's pools would wait for threads that do not exist.
    registry.inherited.extend(entries)
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for resources in entries:
            resources.retired = True
            if resources.pool is not None:
                resources.pool.forget(null)
    finally:
        os.close(null)
