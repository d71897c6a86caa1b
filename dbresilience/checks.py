"""System checks: mistakes that settings can show, each with its fix in the hint."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, register
from django.db import connections

from .conf import Configuration
from .connecting import ConnectingMixin


def check_connection_age(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """dbresilience.E001: CONN_MAX_AGE and a pool contradict each other."""
    return [
        Error(
            f"DATABASES[{alias!r}] sets CONN_MAX_AGE to {given['CONN_MAX_AGE']!r}, but its connections live in a pool.",
            hint="Remove CONN_MAX_AGE; OPTIONS['pool']['max_lifetime'] says how old a connection may get.",
            id="dbresilience.E001",
        )
        for alias, given in settings.DATABASES.items()
        if isinstance(connections[alias], ConnectingMixin)
        and given.get("CONN_MAX_AGE", 0) != 0
        and Configuration.from_settings(alias, given, debug=settings.DEBUG).pooled
    ]


CHECKS = (check_connection_age,)


def register_all() -> None:
    """Register the checks of this module."""
    for check in CHECKS:
        register(check)
