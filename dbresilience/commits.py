"""What became of a COMMIT that was sent and never answered.

PostgreSQL tells it to who knows the transaction's id (manual, `pg_xact_status`; see `transaction_ids`).

Can the answer be believed? After a crash, or on a promoted standby, the server may have lost the last of its log, and
then gives the same id to another transaction. So the position of the log is remembered with the id: "committed" is
believed of a server that has not recovered since, or that got at least as far while it recovered. Another cluster, to
which a name or a pooler may lead by now, is not believed at all: every cluster has a number of its own.
"""

from __future__ import annotations

import os
import threading
from functools import partial
from time import monotonic, sleep
from typing import TYPE_CHECKING

import psycopg

from . import signals
from .deadlines import deadline, seconds_left, spend
from .errors import ROLLED_BACK, CommitOutcomeUnknown, mark
from .process import of_process
from .signals import emit
from .transaction_ids import CLUSTER

if TYPE_CHECKING:
    from .connection import ResilientConnection
    from .lease import Lease
    from .transaction_ids import TransactionId

LONGEST_LOOK_UP_SECONDS = 5.0
"""Longest time that an outcome is looked up for, if the request has as much."""
_DELAYS_SECONDS = (0.0, 0.01, 0.02, 0.05, 0.1)
_ORPHANED_AFTER_SECONDS = 0.25
"""How long an id must be in progress before its session is taken for one that COMMIT never reached."""

_BELIEVED = (
    f"SELECT {CLUSTER}, NOT pg_is_in_recovery(), pg_last_wal_replay_lsn() IS NULL"
    " OR pg_last_wal_replay_lsn() IS NOT DISTINCT FROM %s::pg_lsn OR pg_last_wal_replay_lsn() >= %s::pg_lsn"
)
_STATUS = "SELECT pg_xact_status(%s::xid8)"
_END_ORPHAN = (
    "SELECT pid FROM pg_stat_activity WHERE state LIKE 'idle in transaction%%'"
    " AND usename = current_user AND backend_xid::text = (%s::numeric %% 4294967296)::text"
    " AND pg_terminate_backend(pid)"
)
_FUTURE = "22023"


def settle(connection: ResilientConnection, lease: Lease | None, error: psycopg.Error) -> bool:
    """Find out what became of a COMMIT that `error` ended; True if it happened, False (and marked) if it did not.

    Raises:
        CommitOutcomeUnknown: nobody can say.
    """
    if lease is None:
        raise CommitOutcomeUnknown(_unknown("without a pool it is not looked up")) from error
    outcome, reason, began = "unknown", "", monotonic()
    if lease.transaction_id is None:
        reason = "the transaction's id is not known"
    else:
        seconds = seconds_left(LONGEST_LOOK_UP_SECONDS, lease.pool.configuration.deadline_seconds)
        outcome, reason = _LookUp(connection, lease, lease.transaction_id).run(seconds)
        spend(monotonic() - began)
    emit(
        signals.commit_looked_up,
        lease.pool.alias,
        outcome=outcome,
        reason=reason,
        seconds=monotonic() - began,
        exception=error,
    )
    if outcome == "unknown":
        raise CommitOutcomeUnknown(_unknown(reason)) from error
    if outcome == "not committed":
        mark(error, ROLLED_BACK)
    return outcome == "committed"


def _unknown(reason: str) -> str:
    return (
        f"The connection was lost after COMMIT was sent, and its outcome is not known: {reason}. The change may or may "
        "not have been stored; look before you do it again."
    )


MOST_AT_ONCE = 4
"""Look-ups of this process: one that waits for its session's end does not hold up all others, and a crowd that was cut
off together does not come back as a crowd."""
_turns = threading.BoundedSemaphore(MOST_AT_ONCE)


def _forget_in_child() -> None:
    global _turns
    _turns = threading.BoundedSemaphore(MOST_AT_ONCE)


if hasattr(os, "register_at_fork"):
    of_process("commits", partial(os.register_at_fork, after_in_child=_forget_in_child))


class _LookUp:
    """Asks on a new connection outside the pool, in a thread, since no server can be relied upon to answer in time."""

    def __init__(self, connection: ResilientConnection, lease: Lease, transaction: TransactionId) -> None:
        self._alias = lease.pool.alias
        self._connect = type(connection).connect
        self._arguments = {
            **lease.pool.connect_arguments(), "autocommit": True, "connect_timeout": 2, "slow_query_log": None,
        }  # fmt: skip
        self._transaction = [part and part.decode() for part in transaction]
        self._found: tuple[str, str] | None = None
        self._problem = "the server could not be asked in time"
        self._until = 0.0

    def run(self, seconds: float) -> tuple[str, str]:
        """Return the outcome (``committed``, ``not committed``, ``unknown``) and why it is not known."""
        if seconds <= 0:
            return "unknown", "the request's deadline has passed"
        self._until = monotonic() + seconds
        turns = _turns
        if not turns.acquire(timeout=seconds):
            return "unknown", self._problem
        try:
            thread = threading.Thread(target=self._ask, name="dbresilience-commit-lookup", daemon=True)
            thread.start()
            thread.join(max(0.0, self._until - monotonic()))
        except RuntimeError:  # the interpreter ends
            return "unknown", self._problem
        finally:
            turns.release()
        return self._found or ("unknown", self._problem)

    def _ask(self) -> None:
        for attempt in range(1000):
            sleep(_DELAYS_SECONDS[min(attempt, len(_DELAYS_SECONDS) - 1)])
            left = self._until - monotonic()
            if left <= 0:
                return
            try:
                with deadline(left), self._connect(**self._arguments) as connection:
                    self._found = self._ask_on(connection)
            except Exception as error:  # whatever it is, the outcome stays unknown
                self._problem = f"the server could not be asked ({' '.join(str(error).split())})"
            if self._found is not None:
                return

    def _ask_on(self, connection: ResilientConnection) -> tuple[str, str] | None:
        xid, position, recovered, own_cluster = self._transaction
        cluster, is_writer, is_believed = connection.execute(_BELIEVED, [recovered, position]).fetchone()
        if cluster != own_cluster:
            return "unknown", "the address leads to another database cluster by now"
        if not is_writer:
            self._problem = "a standby cannot say"
            return None
        orphaned_at = monotonic() + _ORPHANED_AFTER_SECONDS
        while monotonic() < self._until:
            try:
                status = connection.execute(_STATUS, [xid]).fetchone()[0]
            except psycopg.Error as error:
                if error.sqlstate == _FUTURE:  # the server has never heard of it
                    return "not committed", ""
                raise
            if status == "aborted":
                return "not committed", ""
            if status == "committed":
                if is_believed:
                    return "committed", ""
                return "unknown", "the server has recovered since, and may have given the id to another transaction"
            if status is None:
                return "unknown", "it is too long ago"
            self._problem = "the transaction is still in progress"
            if is_believed and monotonic() > orphaned_at:
                # COMMIT never reached that session. It would keep its locks until somebody notices.
                for (pid,) in connection.execute(_END_ORPHAN, [xid]).fetchall():
                    emit(signals.orphaned_session_ended, self._alias, backend_pid=pid)
            sleep(0.02)
        return None
