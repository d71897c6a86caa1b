"""`manage.py dbshell`: psql is given the password of this moment, and told which of several hosts it wants."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError
from django.db import connections
from django.db.backends.postgresql import client

from .conf import Configuration
from .credentials import resolved
from .errors import PasswordUnavailable


class DatabaseClient(client.DatabaseClient):
    """Django's, for a password that comes from a function or a file, and for several hosts."""

    @classmethod
    def settings_to_cmd_args_env(
        cls, settings_dict: dict[str, Any], parameters: Iterable[str]
    ) -> tuple[list[str], dict[str, str] | None]:
        """Return psql's arguments and environment, as Django does.

        Raises:
            CommandError: the password cannot be read; the text names the setting.
        """
        alias = next((name for name, given in connections.settings.items() if given is settings_dict), "default")
        try:
            given = resolved(alias, settings_dict, Configuration.from_settings(alias, settings_dict, debug=False))
        except PasswordUnavailable as error:
            raise CommandError(str(error)) from error
        arguments, environment = super().settings_to_cmd_args_env(given, parameters)
        if wanted := settings_dict["OPTIONS"].get("target_session_attrs"):
            environment = {**(environment or {}), "PGTARGETSESSIONATTRS": str(wanted)}
        return arguments, environment
