"""An entry of ``settings.DATABASES``, as checks and the doctor look at it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connections

from .advice import set_connection_option, set_entry, set_option
from .conf import Configuration
from .connecting import ConnectingMixin


@dataclass(frozen=True)
class Alias:
    """One entry."""

    name: str
    given: Mapping[str, Any]

    @property
    def where(self) -> str:
        """How a text names it."""
        return f"DATABASES[{self.name!r}]"

    @property
    def is_ours(self) -> bool:
        """Whether it uses our backend, or one composed with it."""
        return isinstance(connections[self.name], ConnectingMixin)

    @property
    def options(self) -> Mapping[str, Any]:
        """Its OPTIONS."""
        return self.given.get("OPTIONS") or {}

    @property
    def configuration(self) -> Configuration:
        """Its options of ours."""
        return Configuration.from_settings(self.name, self.given, debug=settings.DEBUG)

    @property
    def hosts(self) -> list[str]:
        """The names of its servers; an empty one is a Unix socket."""
        return str(self.given.get("HOST") or self.options.get("host") or "").split(",")

    @property
    def ports(self) -> list[str]:
        """The ports of its servers."""
        return str(self.given.get("PORT") or self.options.get("port") or "5432").split(",")

    def option(self, group: str, name: str, value: Any) -> str:
        """Return the line that sets an option of ours."""
        return set_option(self.name, group, name, value)

    def connection_option(self, name: str, value: Any) -> str:
        """Return the line that sets an option of libpq or psycopg."""
        return set_connection_option(self.name, name, value)

    def entry(self, name: str, value: Any) -> str:
        """Return the line that sets an entry of Django's own."""
        return set_entry(self.name, name, value)

    @property
    def is_local(self) -> bool:
        """Whether nothing leaves this machine."""
        return all(is_local(host) for host in self.hosts)


def is_local(host: str) -> bool:
    """Whether `host` is a Unix socket or this machine's loopback."""
    return host.lower() in ("", "localhost", "::1") or host.startswith(("/", "@", "127."))


def every_alias() -> list[Alias]:
    """Return all entries, whatever their engine."""
    return [Alias(name, given) for name, given in settings.DATABASES.items()]
