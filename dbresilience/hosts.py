"""In which order several hosts are tried: for a writer, the one that was the primary last comes first.

Otherwise a dead machine at the head of the list would delay each connection by `connect_timeout`,
for as long as it is dead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured

from .conf import WRITERS

if TYPE_CHECKING:
    import psycopg


class HostOrder:
    """The hosts of one alias.

    Args:
        hosts: each with its port, in the order of the settings.
    """

    def __init__(self, hosts: list[tuple[str, str]]) -> None:
        self._hosts = hosts

    def is_for_those_of(self, other: HostOrder) -> bool:
        """Whether both put the same hosts in order."""
        return sorted(self._hosts) == sorted(other._hosts)

    def arguments(self) -> dict[str, str]:
        """Return psycopg's arguments that name the hosts."""
        hosts = self._hosts
        return {"host": ",".join(host for host, _ in hosts), "port": ",".join(port for _, port in hosts)}

    def remember(self, connection: psycopg.Connection[Any]) -> None:
        """Put the host of a new connection first."""
        found = (connection.info.host, str(connection.info.port))
        hosts = self._hosts
        if hosts[0] != found and found in hosts:
            self._hosts = [found, *(each for each in hosts if each != found)]


def host_order(alias: str, parameters: Mapping[str, Any]) -> HostOrder | None:
    """Return the order for psycopg's `parameters`; None if there is one host, or any of them would do.

    Raises:
        ImproperlyConfigured: there are several ports, and not one for each host.
    """
    hosts = _hosts(alias, parameters)
    if len(hosts) < 2 or parameters.get("target_session_attrs") not in WRITERS:
        return None
    if "load_balance_hosts" in parameters:
        return None  # an order of its own
    return HostOrder(hosts)


def check_hosts(alias: str, settings_dict: Mapping[str, Any]) -> None:
    """Raise ImproperlyConfigured unless an alias's settings have one port for each host, or one for all."""
    given = {"host": settings_dict.get("HOST"), "port": settings_dict.get("PORT")}
    _hosts(alias, {**(settings_dict.get("OPTIONS") or {}), **{key: value for key, value in given.items() if value}})


def _hosts(alias: str, parameters: Mapping[str, Any]) -> list[tuple[str, str]]:
    if "hostaddr" in parameters:
        return []  # a list of its own, which goes with the ports
    hosts = str(parameters.get("host") or "").split(",")
    ports = str(parameters.get("port") or "5432").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise ImproperlyConfigured(
            f"DATABASES[{alias!r}]: HOST has {len(hosts)} names and PORT has {len(ports)} numbers. "
            "Give one port for each host, or one port for all."
        )
    return list(zip(hosts, ports, strict=True))
