"""System checks: mistakes that settings can show, each with its fix in the hint."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections

from .conf import Configuration, age_and_pool
from .connecting import ConnectingMixin
from .credentials import imported, read_file
from .errors import PasswordUnavailable


def check_connection_age(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """dbresilience.E001: CONN_MAX_AGE and a pool contradict each other."""
    return [
        Error(age_and_pool(alias, given["CONN_MAX_AGE"]), id="dbresilience.E001")
        for alias, given in settings.DATABASES.items()
        if isinstance(connections[alias], ConnectingMixin)
        and given.get("CONN_MAX_AGE", 0) != 0
        and Configuration.from_settings(alias, given, debug=settings.DEBUG).pooled
    ]


def check_other_engines(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """dbresilience.E002: OPTIONS of ours with another ENGINE, which would fail at each connection."""
    return [
        Error(
            f"DATABASES[{alias!r}] has OPTIONS['resilience'], which its ENGINE {given['ENGINE']!r} does not know.",
            hint="Remove it, or set ENGINE to 'dbresilience'.",
            id="dbresilience.E002",
        )
        for alias, given in settings.DATABASES.items()
        if "resilience" in given.get("OPTIONS", {}) and not isinstance(connections[alias], ConnectingMixin)
    ]


def check_password_places(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """dbresilience.W001: the function or the file that the password is read from is not there, or is empty."""
    found: list[CheckMessage] = []
    for alias, given in settings.DATABASES.items():
        if not isinstance(connections[alias], ConnectingMixin):
            continue
        configuration = Configuration.from_settings(alias, given, debug=settings.DEBUG)
        try:
            if isinstance(configuration.password, str):
                imported(configuration.password, f"DATABASES[{alias!r}]: OPTIONS['resilience']['password']")
            if configuration.password_file is not None:
                read_file(configuration.password_file, f"DATABASES[{alias!r}]: password_file")
        except PasswordUnavailable as error:
            hint = "Nothing can connect until it is there; then no restart is needed."
            found.append(Warning(str(error), hint=hint, id="dbresilience.W001"))
    return found


CHECKS = (check_connection_age, check_other_engines, check_password_places)


def register_all() -> None:
    """Register the checks of this module."""
    for check in CHECKS:
        register(check)
