"""What a doctor knows: the settings of an alias, and what its server says and shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .capacity import Processes, Slots
from .conf import Configuration


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server says of itself, and what a connection to it shows.

    Attributes:
        version: as `server_version_num`.
        oldest_version: the oldest major version that Django supports.
        slots: how many connections it lets in.
        in_use: sessions of this user on this database, now.
        role: who logs in, quoted where SQL wants it.
        milliseconds: time-outs of a session by their names; 0 is none.
        superuser: whether the role is one.
        read_only: whether it takes no writes.
        local: whether nothing leaves this machine.
        encrypted: whether the connection is.
        sslmode: what libpq was told.
        pooler: ``transaction``, ``session``, ``unknown`` mode, or None without a pooler.
        keepalive_seconds: silence after which this side asks whether the server lives; None on a Unix socket.
        server_keepalive_seconds: the same of the other side.
    """

    version: int
    oldest_version: int
    slots: Slots
    in_use: int = 0
    role: str = "CURRENT_ROLE"
    milliseconds: Mapping[str, int] = field(default_factory=dict)
    superuser: bool = False
    read_only: bool = False
    local: bool = True
    encrypted: bool = False
    sslmode: str = "prefer"
    pooler: str | None = None
    keepalive_seconds: int | None = None
    server_keepalive_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Settings and server together.

    Attributes:
        alias: whose settings.
        configuration: those of ours.
        processes: who opens pools.
        sizes: `max_size` of each alias on that server.
        wanted_server: libpq's `target_session_attrs`.
        server: the server.
    """

    alias: str
    configuration: Configuration
    processes: Processes
    sizes: Mapping[str, int]
    wanted_server: str
    server: ServerFacts

    def seconds(self, name: str) -> float:
        """Return a time-out of the server, 0 for none."""
        return self.server.milliseconds.get(name, 0) / 1000
