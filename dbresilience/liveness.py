"""Is this connection alive? Answered from its socket, without asking the server.

A server that ends a session says so (FATAL, then EOF) before it closes the socket. libpq keeps
`closed` and `broken` False until somebody reads, so a look at the socket is what tells
(PostgreSQL manual, libpq "Asynchronous Command Processing"). A peer that vanished without a word
cannot be seen this way; TCP keepalives end those.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ConnStatus

if TYPE_CHECKING:
    from .connection import ResilientConnection


def is_alive(connection: ResilientConnection) -> bool:
    """Return whether an idle connection can be used; costs no round trip.

    A readable socket is not proof of death: parameter reports, notifications and TLS records
    arrive on healthy connections too. They are read until the socket is quiet.
    """
    pgconn = connection.pgconn
    if pgconn.status != ConnStatus.OK or connection.farewell is not None:
        return False
    poll = select.poll()
    try:
        poll.register(pgconn.socket, select.POLLIN)
        while poll.poll(0):
            # EOF shows only on the second read when a FATAL message came before it.
            pgconn.consume_input()
            pgconn.is_busy()
            while (notify := pgconn.notifies()) is not None:
                if connection._notify_handler is not None:
                    connection._notify_handler(notify)
            if connection.farewell is not None:
                return False
    except (psycopg.Error, OSError, ValueError):
        return False
    return True
