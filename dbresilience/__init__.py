"""A PostgreSQL backend for Django whose connections survive the database.

Set ``ENGINE = "dbresilience"``. The names below are the whole public interface; the signals are
in `dbresilience.signals`.
"""

from __future__ import annotations

from .deadlines import deadline
from .errors import (
    AcquireTimeout,
    Classification,
    DatabaseUnavailable,
    OutOfTime,
    PinnedConnectionLost,
    TooManyWaiting,
    classify,
)
from .leasing import pinned
from .resources import get_database_resources

__all__ = [
    "AcquireTimeout",
    "Classification",
    "DatabaseUnavailable",
    "OutOfTime",
    "PinnedConnectionLost",
    "TooManyWaiting",
    "classify",
    "deadline",
    "get_database_resources",
    "pinned",
]

__version__ = "0.1.0"
