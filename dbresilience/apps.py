"""The Django app: stops a start with impossible options and registers the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings
from django.db import connections

from .conf import Configuration


class DbresilienceConfig(AppConfig):
    """Optional: ``ENGINE = "dbresilience"`` alone is enough for the backend."""

    name = "dbresilience"
    verbose_name = "Database resilience"

    def ready(self) -> None:
        """Read every alias's options now, so that a mistake stops the start, not a request; put all in its place."""
        from . import (
            checks,
            deadlines,
            history,
            logs,
            looking_again,
            reporting,
            scraping,
            stopping,
            unavailable,
            warmup,
        )
        from .connecting import ConnectingMixin
        from .hosts import check_hosts

        for alias, given in settings.DATABASES.items():
            if isinstance(connections[alias], ConnectingMixin):
                Configuration.from_settings(alias, given, debug=settings.DEBUG)
                check_hosts(alias, given)
        checks.register_all()
        logs.connect_receivers()
        scraping.install()
        history.install()
        looking_again.install()
        reporting.install()
        unavailable.install()
        deadlines.install()
        stopping.install()
        warmup.install()
