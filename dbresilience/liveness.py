"""Is this connection alive? Answered from its socket, without asking the server.

A server that ends a session says so (FATAL, then EOF) before it closes the socket. libpq keeps
`closed` and `broken` False until somebody reads, so a look at the socket is what tells
(PostgreSQL manual, libpq "Asynchronous Command Processing"). A peer that vanished without a word
cannot be seen this way; TCP keepalives end those.
"""

from __future__ import annotations

import logging
import select
from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from .conf import READERS
from .errors import classify
from .meanings import CONNECTION_LOST, NOT_TRANSIENT, READ_ONLY, Classification

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

    from .connection import ResilientConnection
    from .lease import Lease


logger = logging.getLogger("dbresilience.connections")

# Plain numbers, since these are compared for each query and an enumeration's == is slow.
_OK = int(ConnStatus.OK)
_ACTIVE = int(TransactionStatus.ACTIVE)
_UNUSABLE = (int(TransactionStatus.UNKNOWN), _ACTIVE)


LOOK_AFTER_SECONDS = 0.001
"""How long after the server's last answer the socket is looked at before something is sent."""


def is_alive(connection: ResilientConnection) -> bool:
    """Return whether an idle connection can be used; costs no round trip.

    Something to read is not proof of death: parameter reports, notifications and TLS records arrive on healthy
    connections too.
    """
    # libpq's own look, and not `poll`, which lets go of Python's global lock, and so lets another thread run.
    pgconn = connection.pgconn
    if connection.farewell is not None or pgconn.status != _OK:
        return False
    try:
        if pgconn.transaction_status == _ACTIVE:
            pgconn.consume_input()
        else:
            _read(pgconn)
            while connection.may_hear and hand_over_notifications(connection):
                _read(pgconn)  # they come one by one through TLS, and the end is behind them
            _read(pgconn)  # EOF shows only when what came before it was taken
    except (psycopg.Error, OSError, ValueError):
        return False
    return connection.farewell is None


def is_demoted(connection: ResilientConnection) -> bool:
    """Return whether a connection that was to have a server for writing has one that takes no writes.

    The server reports it with its answer to any statement (PostgreSQL 14 and later). Asks for what
    libpq asks for while connecting, and no more: another connection would be as unfit.
    """
    if not connection.must_write:
        return False
    wanted = connection.wanted_server
    reported = connection.pgconn.parameter_status
    if reported(b"in_hot_standby") == b"on":
        return True
    return wanted == "read-write" and reported(b"default_transaction_read_only") == b"on"


def _read(pgconn: PGconn) -> None:
    pgconn.consume_input()
    pgconn.get_result()  # none, since nothing is under way; but what has come is looked at, such as FATAL


def hand_over_notifications(connection: ResilientConnection) -> bool:
    """Tell those who want them of notifications; returns whether there were any.

    psycopg would while it reads an answer, which a handler that raises would cost.
    """
    found = False
    while (notify := connection.pgconn.notifies()) is not None:
        found = True
        try:
            connection.pgconn.notify_handler(notify)  # type: ignore[misc]  # psycopg sets it for each connection
        except Exception:
            logger.exception("A notify handler raised")
    return found


# Linux tells that the peer has closed even while nobody reads; elsewhere only once both sides have.
_HUNG_UP = getattr(select, "POLLRDHUP", select.POLLHUP)


def is_hung_up(connection: ResilientConnection) -> bool:
    """Return whether the server has closed a connection that another thread may be using.

    Reads nothing, so it is safe beside a running query; what has not been noticed yet is False.
    """
    if connection.pgconn.status != ConnStatus.OK:
        return True
    poll = select.poll()
    try:
        poll.register(connection.pgconn.socket, _HUNG_UP)
        return bool(poll.poll(0))
    except (psycopg.Error, OSError, ValueError):
        return True


def is_spent(lease: Lease) -> bool:
    """Return whether a connection that comes back must not be used again; costs no round trip."""
    connection = lease.connection
    if lease.discard or connection.farewell is not None:
        return True
    # libpq calls the transaction status of a lost connection unknown.
    if connection.pgconn.transaction_status in _UNUSABLE:
        return True
    return lease.last_error is not None and classify(lease.last_error).evict


def cause_of_death(connection: ResilientConnection, error: psycopg.Error | None) -> tuple[str, Classification]:
    """Say in words why a connection ends, and what that means for its siblings."""
    farewell = connection.farewell
    if farewell is not None:
        try:
            meaning = classify(psycopg.errors.lookup(farewell)())
        except KeyError:
            meaning = CONNECTION_LOST
        return f"the server ended the session ({farewell})", meaning
    if error is not None:
        meaning = classify(error)
        if meaning.name == READ_ONLY.name and connection.wanted_server in READERS:
            meaning = replace(meaning, condemn=False)  # a mistake of the program; the server is the right one
        return f"{meaning.name} ({error.sqlstate or 'no SQLSTATE'})", meaning
    if connection.pgconn.status == ConnStatus.OK and is_demoted(connection):
        return "the server takes no writes any more", READ_ONLY
    if connection.pgconn.status == ConnStatus.OK:
        return "discarded", NOT_TRANSIENT
    return "the server closed the connection while idle", CONNECTION_LOST
