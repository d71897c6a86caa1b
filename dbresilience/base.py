"""The backend that ``ENGINE = "dbresilience"`` names: Django imports ``<ENGINE>.base``."""

from __future__ import annotations

from django.db.backends.postgresql import base as postgresql

from .wrapper import ResilienceMixin


class DatabaseWrapper(ResilienceMixin, postgresql.DatabaseWrapper):
    """Django's PostgreSQL backend with leases on a shared pool."""
