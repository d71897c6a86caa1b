"""How times with a time zone are read: by psycopg's quickest loader, as Django 6.1 does; 5.2 reads them in Python.

Where both the program and the session are in UTC, that loader alone does it: nothing of a row is left to Python.
"""

from __future__ import annotations

from datetime import UTC, datetime, tzinfo
from typing import Any

import psycopg
from django.db.backends.postgresql.base import TIMESTAMPTZ_OID
from psycopg.adapt import AdaptersMap, Loader
from psycopg.pq import Format

_quickest = psycopg.adapters.get_loader(TIMESTAMPTZ_OID, Format.TEXT)
assert _quickest is not None


class TimestampLoader(Loader):
    """Loads `timestamptz` in one time zone, or without any."""

    timezone: tzinfo | None = None

    def __new__(cls, oid: int, context: Any = None) -> Any:
        """Return psycopg's own where its times are in the zone already."""
        connection = None if context is None or cls.timezone is not UTC else context.connection
        if connection is not None and connection.pgconn.parameter_status(b"TimeZone") == b"UTC":
            return _quickest(oid, context)  # type: ignore[misc]  # psycopg has one
        return super().__new__(cls)

    def __init__(self, oid: int, context: Any = None) -> None:
        super().__init__(oid, context)
        self._read = _quickest(oid, context).load  # type: ignore[misc]  # psycopg has one

    def load(self, data: Any) -> datetime:
        """Return the time that `data` says."""
        return self._read(data).replace(tzinfo=self.timezone)  # type: ignore[no-any-return]  # that of a timestamptz


def register_loader(zone: tzinfo | None, adapters: AdaptersMap) -> None:
    """Have times loaded in `zone`; without any if it is None."""
    adapters.register_loader("timestamptz", type("TimestampLoader", (TimestampLoader,), {"timezone": zone}))


def adapters_in(zone: tzinfo | None, template: AdaptersMap) -> AdaptersMap:
    """Return adapters that are those of `template`, which is Django's for every alias, but load times in `zone`."""
    adapters = AdaptersMap(template)
    register_loader(zone, adapters)
    return adapters
