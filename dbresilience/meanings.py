"""What database errors can mean, as classes: SQLSTATE → class, and what follows for connection, retry and HTTP client.

Codes and names: PostgreSQL manual, appendix A. `errors.classify` finds the class of an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from .process import keep

NOT_SENT = "not_sent"
READ = "read"
TRANSACTION = "transaction"
NEVER = "never"


@dataclass(frozen=True, slots=True)
class Classification:
    """What one error means.

    Attributes:
        name: the class, e.g. ``connection_lost``.
        status: HTTP status that tells a client the truth, or None to leave the error alone.
        evict: the connection must not be used again.
        condemn: its whole generation is suspect.
        outage: evidence that the server is away, as opposed to busy.
        retry: what may run again: ``never``, ``not_sent`` (only if provably never sent),
            ``read`` (also a read outside a transaction) or ``transaction`` (a whole repeatable
            unit).
        retry_after_seconds: a better Retry-After than the configured one, or None.
    """

    name: str
    status: int | None = None
    evict: bool = False
    condemn: bool = False
    outage: bool = False
    retry: str = NEVER
    retry_after_seconds: float | None = None

    def __str__(self) -> str:
        return self.name

    @property
    def unavailable(self) -> bool:
        """Whether the honest answer is 503: nothing is wrong with the request itself."""
        return self.status == 503


CONNECTION_LOST = Classification("connection_lost", 503, evict=True, condemn=True, outage=True, retry=READ)
CANNOT_CONNECT = Classification("cannot_connect", 503, outage=True, retry=NOT_SENT)
SESSION_ENDED = Classification("session_ended", 503, evict=True, retry=READ)
SHUTTING_DOWN = replace(CONNECTION_LOST, name="shutting_down")
NO_WRITER = replace(CANNOT_CONNECT, name="no_writer", retry_after_seconds=1)
STARTING = Classification("starting", 503, outage=True, retry=NOT_SENT, retry_after_seconds=1)
OVERLOADED = Classification("overloaded", 503)
SERVER_FULL = replace(OVERLOADED, name="server_full", retry=NOT_SENT)
POOL_EXHAUSTED = replace(OVERLOADED, name="pool_exhausted", retry=NOT_SENT)
UNAVAILABLE = Classification("unavailable", 503, retry=NOT_SENT)
POOLER_UNAVAILABLE = Classification("pooler_unavailable", 503, evict=True, outage=True, retry=NOT_SENT)
POOLER_FULL = Classification("pooler_full", 503, evict=True, retry=NOT_SENT)
POOLER_LOST_SERVER = Classification("pooler_lost_server", 503, evict=True, retry=READ)
READ_ONLY = Classification("read_only", 503, evict=True, condemn=True, retry=TRANSACTION)
SERIALIZATION = Classification("serialization", 503, retry=TRANSACTION, retry_after_seconds=1)
OUTCOME_UNKNOWN = Classification("outcome_unknown", 503, evict=True, condemn=True, outage=True)
NOT_COMMITTED = replace(CONNECTION_LOST, name="not_committed", retry=TRANSACTION)
LOCK_NOT_AVAILABLE = Classification("lock_not_available", 503, retry_after_seconds=1)
TIMEOUT = Classification("timeout", 504)
OUT_OF_TIME = Classification("out_of_time", 504)
DEADLINE_EXCEEDED = Classification("deadline_exceeded", 503, evict=True, outage=True)
TRANSACTION_TIMEOUT = Classification("transaction_timeout", 504, evict=True)
IDLE_IN_TRANSACTION = Classification("idle_in_transaction", evict=True, retry=TRANSACTION)
DATABASE_DROPPED = Classification("database_dropped", evict=True, condemn=True)
# Closing the connection drops its prepared statements, which are the trouble.
STALE_PLAN = Classification("stale_plan", evict=True, retry=READ)
SERVER_TROUBLE = Classification("server_trouble", 503, evict=True, outage=True)
SERVER_BUG = Classification("server_bug", evict=True)
CREDENTIALS = Classification("credentials", 503, outage=True)
PROTOCOL = Classification("protocol", evict=True)
OTHER_SERVER_AWAY = Classification("other_server_away", 503)
NOT_TRANSIENT = Classification("not_transient")

BY_SQLSTATE: dict[str, Classification] = {
    "08000": CONNECTION_LOST,  # connection_exception
    "08001": CANNOT_CONNECT,  # sqlclient_unable_to_establish_sqlconnection
    "08003": CONNECTION_LOST,  # connection_does_not_exist
    "08004": CANNOT_CONNECT,  # sqlserver_rejected_establishment_of_sqlconnection
    "08006": CONNECTION_LOST,  # connection_failure
    "08007": OUTCOME_UNKNOWN,  # transaction_resolution_unknown
    "25006": READ_ONLY,  # read_only_sql_transaction; an InternalError in psycopg
    "25P03": IDLE_IN_TRANSACTION,  # idle_in_transaction_session_timeout; an InternalError
    "25P04": TRANSACTION_TIMEOUT,  # transaction_timeout; an InternalError
    "26000": STALE_PLAN,  # invalid_sql_statement_name
    "28000": CREDENTIALS,  # invalid_authorization_specification
    "28P01": CREDENTIALS,  # invalid_password
    "40000": SERIALIZATION,  # transaction_rollback
    "40001": SERIALIZATION,  # serialization_failure
    "40003": OUTCOME_UNKNOWN,  # statement_completion_unknown
    "40P01": SERIALIZATION,  # deadlock_detected
    "42P05": STALE_PLAN,  # duplicate_prepared_statement
    "53000": OVERLOADED,  # insufficient_resources
    "53100": OVERLOADED,  # disk_full
    "53200": OVERLOADED,  # out_of_memory
    "53300": SERVER_FULL,  # too_many_connections
    "53400": OVERLOADED,  # configuration_limit_exceeded
    "55P03": LOCK_NOT_AVAILABLE,  # lock_not_available
    "57014": TIMEOUT,  # query_canceled
    "57P01": SHUTTING_DOWN,  # admin_shutdown
    "57P02": SHUTTING_DOWN,  # crash_shutdown
    "57P03": STARTING,  # cannot_connect_now
    "57P04": DATABASE_DROPPED,  # database_dropped
    "57P05": SESSION_ENDED,  # idle_session_timeout: raised while idle, so nothing was lost
    "58000": SERVER_TROUBLE,  # system_error
    "58030": SERVER_TROUBLE,  # io_error
    "HV00N": OTHER_SERVER_AWAY,  # fdw_unable_to_establish_connection
    "XX000": SERVER_BUG,  # internal_error
    "XX001": SERVER_TROUBLE,  # data_corrupted
    "XX002": SERVER_TROUBLE,  # index_corrupted
}

POOLER_TEXTS: tuple[tuple[str, Classification], ...] = (
    ("query_wait_timeout", POOLER_FULL),
    ("no more connections allowed", POOLER_FULL),
    ("client connections exceeded", POOLER_FULL),
    ("max clients reached", POOLER_FULL),
    ("maxclientsinsessionmode", POOLER_FULL),
    ("server login has been failing", POOLER_UNAVAILABLE),
    ("client_login_timeout", POOLER_UNAVAILABLE),
    ("server shutting down", POOLER_UNAVAILABLE),
    ("pooler is shutting down", POOLER_UNAVAILABLE),
    (" is down", POOLER_UNAVAILABLE),
    ("server conn crashed", POOLER_LOST_SERVER),
)

_CLASSES = [name for name, value in globals().items() if isinstance(value, Classification)]
keep(globals(), "Classification", "BY_SQLSTATE", "POOLER_TEXTS", *_CLASSES)
