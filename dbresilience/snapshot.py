"""The pool's numbers at one moment, and the error texts that carry them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .conf import Configuration
from .errors import AcquireTimeout, DatabaseUnavailable, OutOfTime, TooManyWaiting


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool of one alias in this process at one moment.

    Attributes:
        alias: whose pool it is.
        max_size: most connections; 0 without a pool.
        min_size: connections kept open while nothing is asked.
        size: connections, used and idle, and those on their way from one to the next.
        in_use: connections that somebody has.
        idle: connections that nobody has.
        waiting: requests that wait for a connection.
        generation: how often the pool began anew, because its server was gone or on an operator's order.
        opened_total: connections opened since the process began.
        connect_failures_total: attempts to connect that failed.
        server_full_total: those of them that failed because the server, or a pooler, was full.
        breaker_opened_total: how often the database was found to be away.
        breaker: ``closed``, ``open`` (requests are refused: the database is away) or ``paused``.
        warm_up: ``off``, ``running``, ``done`` or ``failed``.
    """

    alias: str
    max_size: int = 0
    min_size: int = 0
    size: int = 0
    in_use: int = 0
    idle: int = 0
    waiting: int = 0
    generation: int = 0
    opened_total: int = 0
    connect_failures_total: int = 0
    server_full_total: int = 0
    breaker_opened_total: int = 0
    breaker: str = "closed"
    warm_up: str = "off"

    @classmethod
    def of(
        cls, alias: str, configuration: Configuration, *, in_use: int, idle: int, open: int, **numbers: Any
    ) -> PoolSnapshot:
        """Put together what the pool counts and what it was told; `open` are those that are not closed."""
        return cls(
            alias=alias,
            max_size=configuration.max_size,
            min_size=configuration.min_size,
            # One that is lent may be closed, one that is open be neither lent nor idle.
            size=max(in_use + idle, open),
            in_use=in_use,
            idle=idle,
            **numbers,
        )

    @property
    def saturated(self) -> bool:
        """Whether every connection that may be is in use, so that whoever comes next waits."""
        return 0 < self.max_size <= self.in_use

    @property
    def queued(self) -> int:
        """Requests that wait for another to finish, not for a connection being opened for them."""
        return self.waiting - (self.max_size - self.size)

    def __str__(self) -> str:
        between = self.size - self.in_use - self.idle
        changing_hands = f", changing hands {between}" if between > 0 else ""
        return (
            f"max_size {self.max_size}, in use {self.in_use}, idle {self.idle}{changing_hands}, waiting {self.waiting}"
        )


def timed_out(
    snapshot: PoolSnapshot, waited_seconds: float, configuration: Configuration, holders: list[str]
) -> AcquireTimeout:
    """No connection became free in time, or none could be opened at all. `holders`: those of longest standing."""
    could_not_connect = snapshot.size < snapshot.max_size
    if could_not_connect:
        text = (
            f"Pool {snapshot.alias!r} could not open a connection within {waited_seconds:.1f} s: "
            f"{snapshot}. The server accepts no connections or does not answer."
        )
    else:
        text = (
            f"No connection of pool {snapshot.alias!r} became free within {waited_seconds:.1f} s: "
            f"{snapshot}. Held longest by: {'; '.join(holders) or 'nobody now'}. "
            "Hold connections for less time, or raise OPTIONS['pool']['max_size']."
        )
    error = AcquireTimeout(text, alias=snapshot.alias, retry_after_seconds=configuration.retry_after_seconds)
    error.could_not_connect = could_not_connect
    return error


def too_many_waiting(snapshot: PoolSnapshot, configuration: Configuration) -> TooManyWaiting:
    """`max_waiting` requests wait already."""
    return TooManyWaiting(
        f"Pool {snapshot.alias!r} refused one more waiting request: {snapshot}, "
        f"max_waiting {configuration.max_waiting}.",
        alias=snapshot.alias,
        retry_after_seconds=configuration.retry_after_seconds,
    )


def unreachable(alias: str, cause: Exception, configuration: Configuration) -> DatabaseUnavailable:
    """The server cannot be reached, or refused us."""
    return DatabaseUnavailable(
        f"The database of pool {alias!r} cannot be reached: {' '.join(str(cause).split())}",
        alias=alias,
        retry_after_seconds=configuration.retry_after_seconds,
    )


def out_of_time(alias: str, configuration: Configuration) -> OutOfTime:
    """The request has waited for the database as long as it may."""
    return OutOfTime(
        f"The request's deadline had passed before it asked pool {alias!r} for a connection; "
        f"deadline_seconds is {configuration.deadline_seconds}.",
        alias=alias,
        retry_after_seconds=configuration.retry_after_seconds,
    )


def paused(snapshot: PoolSnapshot, waited_seconds: float, configuration: Configuration) -> DatabaseUnavailable:
    """An operator has paused the pool, for longer than this request could wait."""
    return DatabaseUnavailable(
        f"Pool {snapshot.alias!r} is paused by an operator, and {waited_seconds:.1f} s were not enough: {snapshot}.",
        alias=snapshot.alias,
        retry_after_seconds=configuration.retry_after_seconds,
    )
