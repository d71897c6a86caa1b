"""A transaction's id, by which its outcome can be looked up; had in the same message as a statement that changes rows.

Not every server tells it: some that speak PostgreSQL's protocol have no log to tell the position of, and the functions
may be forbidden. Within a transaction that would be an error of its own and undo it, so each new connection is asked
once, before anybody has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.pq import ConnStatus

from . import signals
from .errors import classify
from .meanings import NOT_TRANSIENT
from .signals import emit

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .lease import Lease

CAN_ASK = hasattr(psycopg.Cursor, "set_result")
"""Before psycopg 3.3 there is no way back to the first result of two."""

CLUSTER = "(SELECT system_identifier::text FROM pg_catalog.pg_control_system())"
_ID = (
    "SELECT pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_current_wal_insert_lsn(), "
    "pg_catalog.pg_last_wal_replay_lsn()"
)
# A standby has no position to insert at; it may become a primary.
_CAN_TELL = (
    f"SELECT {CLUSTER}, pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_last_wal_replay_lsn(),"
    " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END"
)
# On a line of its own, since the statement before may end in a comment.
_AND_ID = f"\n;{_ID}"
_AND_ID_AS_SENT = _AND_ID.encode()


class TransactionId(NamedTuple):
    """A transaction's id, the position of the log when it was known, where its server's last recovery ended, and the
    cluster whose id it is."""

    xid: bytes
    position: bytes
    recovered: bytes | None
    cluster: bytes


class LookUps:
    """Whether outcomes can be looked up for the connections of one pool."""

    def __init__(self, alias: str, *, wanted: bool) -> None:
        self._alias = alias
        self._wanted = wanted

    def prepare(self, connection: ResilientConnection) -> None:
        """Learn of a new connection whether its server can tell, and which cluster it is in: one round trip.

        Raises:
            psycopg.Error: the connection was lost.
        """
        if not self._wanted or connection.cluster is not None:
            return
        try:
            with psycopg.Cursor(connection) as cursor:
                result = cursor.execute(_CAN_TELL).pgresult
        except psycopg.Error as error:
            if connection.pgconn.status != ConnStatus.OK:
                raise
            if classify(error) is NOT_TRANSIENT:
                self._wanted = False
                emit(signals.commit_lookup_disabled, self._alias, exception=error)
            return
        assert result is not None
        connection.cluster = result.get_value(0, 0)


def execute_and_ask(cursor: Any, execute: Callable[..., Any], query: str, params: Any, kwargs: dict[str, Any]) -> None:
    """Execute one statement that changes rows, and learn its transaction's id, which is then hidden from the cursor."""
    try:
        execute(query + _AND_ID, params, **kwargs)
    finally:
        _hide_question(cursor)
    cursor.lease.transaction_id = _read(cursor.connection, cursor.take_last_result())


def _hide_question(cursor: Any) -> None:
    # Django's `connection.queries`, and whoever shows them, take the text from there.
    sent = cursor._query
    if sent is not None and sent.query is not None and sent.query.endswith(_AND_ID_AS_SENT):
        sent.query = sent.query[: -len(_AND_ID_AS_SENT)]


def ask_before_commit(connection: ResilientConnection, lease: Lease) -> None:
    """Learn the id by a round trip of its own, where it could not be had otherwise."""
    if connection.is_read_only_server:
        return
    with psycopg.Cursor(connection) as cursor:
        lease.transaction_id = _read(connection, cursor.execute(_ID).pgresult)


def _read(connection: ResilientConnection, result: Any) -> TransactionId | None:
    xid, cluster = result.get_value(0, 0), connection.cluster
    if xid is None or cluster is None:
        return None
    return TransactionId(xid, result.get_value(0, 1), result.get_value(0, 2), cluster)
