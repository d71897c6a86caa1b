"""Whether all processes fit into the server, which only the server can tell."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg
from django.core.checks import CheckMessage
from django.core.exceptions import ImproperlyConfigured

from dbresilience.aliases import every_alias
from dbresilience.capacity import declared_processes
from dbresilience.deadlines import deadline
from dbresilience.diagnosis import slots
from dbresilience.examining import examine

from .rules import Check, Mistake, message

LONGEST_LOOK_SECONDS = 5.0


class DatabaseCheck(Check):
    """A check that asks servers, for the aliases that Django names to it."""

    def __call__(self, app_configs: Any, databases: Iterable[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
        """Return Django's messages."""
        return [message(self.id, mistake) for name in databases or () for mistake in missing_slots(name)]


def missing_slots(name: str) -> Iterable[Mistake]:
    """`max_size` × WEB_CONCURRENCY, and one worker, are more than the server has slots; with `migrate` and \
    `check --database`."""
    for alias in every_alias():
        if alias.name == name and alias.is_ours and alias.configuration.pooled:
            try:
                with deadline(LONGEST_LOOK_SECONDS):
                    facts = examine(alias, declared_processes())
            except (psycopg.Error, ImproperlyConfigured):
                return  # whoever needs the server says what is wrong with it, another check what with the settings
            for finding in slots(facts):
                if finding.severity != "fine":
                    yield Mistake(f"{alias.where}: {finding.found}", finding.set)


check_slots = DatabaseCheck("dbresilience.W024", missing_slots, lambda: ())
CHECKS = (check_slots,)
