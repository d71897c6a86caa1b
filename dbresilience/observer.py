"""Who hears what becomes of a physical connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .connection import ResilientConnection


class ConnectionObserver(Protocol):
    """Who wants to know about physical connections: the generation they belong to."""

    def connection_opened(self, connection: ResilientConnection, seconds: float) -> None:
        """It was established, which took `seconds`."""

    def connection_failed(self, exception: Exception, seconds: float) -> None:
        """It could not be had; that was known after `seconds`."""

    def connection_closed(self, connection: ResilientConnection) -> None:
        """It was closed; `end_reason` says why."""

    def connection_silent(self) -> None:
        """The server has not answered a statement for a while; it is still waited for."""

    def connection_overdue(
        self,
        connection: ResilientConnection,
        *,
        deadline_seconds: float | None,
        answered: bool,
        is_server_silent: bool,
    ) -> None:
        """A statement was given up.

        Args:
            connection: closed, unless `answered`.
            deadline_seconds: the limit that was in force.
            answered: whether the server said that it cancelled the statement.
            is_server_silent: whether it did not even take the request to cancel.
        """

    def take_parked(self) -> ResilientConnection | None:
        """Return a connection that is open already and belongs to nobody, if there is one."""
