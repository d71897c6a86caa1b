"""A PostgreSQL backend for Django whose connections survive the database.

Set ``ENGINE = "dbresilience"``. The names below are the whole public interface; the signals are
in `dbresilience.signals`.
"""

from __future__ import annotations

from .deadlines import deadline
from .errors import (
    AcquireTimeout,
    CommitOutcomeUnknown,
    DatabaseUnavailable,
    OutOfTime,
    PinnedConnectionLost,
    RetryInsideTransaction,
    TooManyWaiting,
    classify,
)
from .gathering import gather
from .leasing import pinned
from .meanings import Classification
from .no_retries import no_retries
from .pipelines import pipeline
from .resources import get_database_resources
from .retry import retry, retrying

__all__ = [
    "AcquireTimeout",
    "Classification",
    "CommitOutcomeUnknown",
    "DatabaseUnavailable",
    "OutOfTime",
    "PinnedConnectionLost",
    "RetryInsideTransaction",
    "TooManyWaiting",
    "classify",
    "deadline",
    "gather",
    "get_database_resources",
    "no_retries",
    "pinned",
    "pipeline",
    "retry",
    "retrying",
]

__version__ = "0.1.0"
