"""The backend that ``ENGINE = "dbresilience"`` names: Django imports ``<ENGINE>.base``."""

from __future__ import annotations

from django.db.backends.postgresql import base as postgresql

from . import checks, deadlines, logs, unavailable
from .wrapper import ResilienceMixin


class DatabaseWrapper(ResilienceMixin, postgresql.DatabaseWrapper):
    """Django's PostgreSQL backend with leases on a shared pool."""


checks.register_all()
logs.connect_receivers()
unavailable.install()
deadlines.install()
