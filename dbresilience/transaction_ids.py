"""A transaction's id, by which its outcome can be looked up; had in the same message as a statement that changes rows.

Not every server tells it: some that speak PostgreSQL's protocol have no log to tell the position of, and the functions
may be forbidden. Within a transaction that would be an error of its own and undo it, so each new connection is asked
once, before anybody has it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
from psycopg.pq import ConnStatus, ExecStatus

from . import signals
from .errors import classify
from .meanings import NOT_TRANSIENT
from .signals import emit

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .lease import Lease

_ROWS = int(ExecStatus.TUPLES_OK)

CLUSTER = "(SELECT system_identifier::text FROM pg_catalog.pg_control_system())"
ID = (
    "SELECT pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_current_wal_insert_lsn(), "
    "pg_catalog.pg_last_wal_replay_lsn()"
)
# A standby has no position to insert at; it may become a primary.
_CAN_TELL = (
    f"SELECT {CLUSTER}, pg_catalog.pg_current_xact_id_if_assigned(), pg_catalog.pg_last_wal_replay_lsn(),"
    " CASE WHEN NOT pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_current_wal_insert_lsn() END"
)


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

    def prepare(self, connection: ResilientConnection, *before: str) -> bool:
        """Learn of a new connection whether its server can tell, and which cluster it is in: one round trip.

        Args:
            before: statements that go with it, before it.

        Returns:
            Whether all were executed; if not, none was.

        Raises:
            psycopg.Error: the connection was lost.
        """
        asks = self._wanted and connection.cluster is None
        texts = [*before, *([_CAN_TELL] if asks else [])]
        if not texts:
            return True
        try:
            with psycopg.Cursor(connection) as cursor:
                cursor.execute(";".join(texts).encode())
                while cursor.nextset():
                    pass
                result = cursor.pgresult
        except psycopg.Error as error:
            if connection.pgconn.status != ConnStatus.OK:
                raise
            if not before and classify(error) is NOT_TRANSIENT:
                self._wanted = False
                emit(signals.commit_lookup_disabled, self._alias, exception=error)
            return False
        if asks:
            assert result is not None
            connection.cluster = result.get_value(0, 0)
        return True


def ask_before_commit(connection: ResilientConnection, lease: Lease) -> None:
    """Learn the id by a round trip of its own, where it could not be had otherwise."""
    if connection.is_read_only_server:
        return
    with psycopg.Cursor(connection) as cursor:
        lease.transaction_id = read_id(connection, cursor.execute(ID).pgresult)


def read_id(connection: ResilientConnection, result: Any) -> TransactionId | None:
    """Return the answer to `ID`; None if the transaction has changed nothing yet.

    Raises:
        psycopg.Error: the server refused it, and with it the transaction.
    """
    if result.status != _ROWS:
        raise refusal_of_id(result, connection.pgconn._encoding)
    xid, cluster = result.get_value(0, 0), connection.cluster
    if xid is None or cluster is None:
        return None
    return TransactionId(xid, result.get_value(0, 1), result.get_value(0, 2), cluster)


def refusal_of_id(result: Any, encoding: str) -> psycopg.Error:
    """Return the error that was answered to `ID`, with a note that tells where it comes from."""
    error = psycopg.errors.error_from_result(result, encoding=encoding)
    error.add_note("It was raised by the question for the transaction's id; commit_lookup = False lets it be.")
    return error
