"""What is wrong with a server for the settings that are to use it: rules from facts to findings, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .advice import set_connection_option, set_option
from .capacity import Demand
from .conf import READERS
from .facts import Facts
from .findings import Finding, error, fine, warning

SHORT_SECONDS = 5.0
"""A limit on idle transactions below this ends some that only compute."""
NEARLY_FULL = 0.9
LONGEST_SILENCE_SECONDS = 600
"""Until a vanished peer is noticed; the usual default of systems is 7200."""
VERIFYING = ("verify-ca", "verify-full")


def diagnose(facts: Facts) -> list[Finding]:
    """Return what every rule says, in the order of the rules."""
    return [finding for rule in RULES for finding in rule(facts)]


def slots(facts: Facts) -> Iterator[Finding]:
    """Processes × size against what the server lets in."""
    if not facts.configuration.pooled:
        left = max(facts.server.slots.left - facts.server.in_use, 0)
        yield fine("slots", f"No pool: each thread has a connection of its own, {left} are left.")
        return
    demand, there = Demand(facts.processes, sum(facts.sizes.values())), facts.server.slots
    if facts.server.pooler:
        yield fine(
            "slots", f"{demand}. The pooler's max_client_conn must be more; its own share of the server is {there}."
        )
        return
    text = f"{demand}. The server has {there}."
    if demand.rolling <= there.left:
        yield fine("slots", text)
        return
    size = demand.largest_size(there.left, len(facts.sizes))
    if size > 0:
        mend = "; ".join(set_option(name, "pool", "max_size", size) for name, had in facts.sizes.items() if had > size)
    elif there.limit is not None and there.limit == there.left:
        mend = f"ALTER ROLE {facts.server.role} CONNECTION LIMIT {demand.rolling};  (or the database's)"
    else:
        mend = (
            f"ALTER SYSTEM SET max_connections = {demand.rolling + there.reserved + there.others};  "
            "and restart the server, or put PgBouncer in front"
        )
    yield (error if demand.steady > there.left else warning)("slots", text, mend)


def pressure(facts: Facts) -> Iterator[Finding]:
    """How full the server is at this moment."""
    there = facts.server.slots
    usable = there.max_connections - there.reserved
    taken = facts.server.in_use + there.others
    text = f"{taken} of {usable} are taken now: {facts.server.in_use} by this user here, {there.others} by others."
    if taken >= NEARLY_FULL * usable:
        yield warning(
            "slots_now",
            text,
            "SELECT usename, datname, application_name, state, count(*) FROM pg_stat_activity GROUP BY 1, 2, 3, 4;",
        )
    else:
        yield fine("slots_now", text)


def statement_timeout(facts: Facts) -> Iterator[Finding]:
    """The longest statement against the longest request."""
    limit, ours = facts.configuration.deadline_seconds, facts.configuration.statement_timeout_seconds
    longest = facts.seconds("statement_timeout") if ours is None else ours
    whose = "of the server or its role" if ours is None else "of the settings"
    if limit is not None and longest >= limit and ours is None:
        yield warning(
            "statement_timeout",
            f"statement_timeout {whose} is {longest:g} s, and a request is over after {limit:g} s (deadline_seconds): "
            "it never rings in a request.",
            set_option(facts.alias, "resilience", "statement_timeout_seconds", round(limit * 2 / 3, 1)),
        )
    elif longest:
        yield fine("statement_timeout", f"{longest:g} s, {whose}.")
    else:
        bound = "nothing bounds a statement" if limit is None else f"a request ends after {limit:g} s, a task never"
        yield fine("statement_timeout", f"None: {bound}.")
    lock = facts.seconds("lock_timeout")
    if longest and lock >= longest:
        yield warning(
            "lock_timeout",
            f"lock_timeout is {lock:g} s, statement_timeout {longest:g} s: the statement ends first.",
            f"ALTER ROLE {facts.server.role} SET lock_timeout = '{longest / 2:g}s';",
        )
    transaction = facts.seconds("transaction_timeout")
    if transaction and transaction <= max(longest, limit or 0):
        yield warning(
            "transaction_timeout",
            f"transaction_timeout is {transaction:g} s: the server ends the session before statement_timeout "
            f"({longest:g} s) or deadline_seconds ({'none' if limit is None else f'{limit:g} s'}) would end the work.",
            f"ALTER ROLE {facts.server.role} SET transaction_timeout = '{2 * max(longest, limit or 0):g}s';",
        )


def idle_sessions(facts: Facts) -> Iterator[Finding]:
    """The server ends what the pool means to keep."""
    server, kept = facts.seconds("idle_session_timeout"), facts.configuration.max_idle
    least = facts.configuration.min_size
    if not facts.configuration.pooled or not server:
        yield fine("idle_session_timeout", "None: idle connections stay as long as the pool wants them.")
    elif least:
        yield warning(
            "idle_session_timeout",
            f"The server ends sessions idle for {server:g} s, and the pool keeps {least} (min_size) for ever: "
            "they are opened anew all the time.",
            f"{set_option(facts.alias, 'pool', 'min_size', 0)}, "
            f"or ALTER ROLE {facts.server.role} SET idle_session_timeout = 0;",
        )
    elif server <= kept:
        yield warning(
            "idle_session_timeout",
            f"The server ends sessions idle for {server:g} s, and the pool keeps them for {kept:g} s (max_idle).",
            f"{set_option(facts.alias, 'pool', 'max_idle', round(server / 2, 1))}, "
            f"or ALTER ROLE {facts.server.role} SET idle_session_timeout = 0;",
        )
    else:
        yield fine("idle_session_timeout", f"{server:g} s, more than max_idle {kept:g} s.")


def idle_transactions(facts: Facts) -> Iterator[Finding]:
    """Transactions that wait for something else than the database."""
    name, seconds = "idle_in_transaction_session_timeout", facts.seconds("idle_in_transaction_session_timeout")
    if 0 < seconds < SHORT_SECONDS:
        yield warning(
            name,
            f"{seconds:g} s: a transaction that computes or calls somebody for longer is ended, and answered with 500.",
            f"ALTER ROLE {facts.server.role} SET {name} = '60s';",
        )
    elif seconds:
        yield fine(name, f"{seconds:g} s.")
    else:
        yield fine(
            name,
            "None: a process that hangs in a transaction keeps its locks.",
            f"ALTER ROLE {facts.server.role} SET {name} = '60s';",
        )


def encryption(facts: Facts) -> Iterator[Finding]:
    """Who can read along."""
    server = facts.server
    if server.encrypted:
        verifies = server.sslmode in VERIFYING
        yield fine(
            "tls",
            f"Encrypted; sslmode is {server.sslmode}{'' if verifies else ', which does not check who answers'}.",
            "" if verifies else set_connection_option(facts.alias, "sslmode", "verify-full"),
        )
    elif server.local:
        yield fine("tls", "Not encrypted, and the server is on this machine.")
    else:
        yield warning(
            "tls",
            f"Not encrypted, and the server is on another machine; sslmode is {server.sslmode}.",
            set_connection_option(facts.alias, "sslmode", "require"),
        )


def keepalives(facts: Facts) -> Iterator[Finding]:
    """How long a peer that vanished is waited for."""
    server, ours, theirs = facts.server, facts.server.keepalive_seconds, facts.server.server_keepalive_seconds
    if ours is None or server.local:
        yield fine("keepalives", "Not needed: the server is on this machine.")
        return
    if ours == 0 or ours > LONGEST_SILENCE_SECONDS:
        state = "off" if ours == 0 else f"sent after {ours} s of silence"
        yield warning(
            "keepalives",
            f"TCP keepalives are {state}: a server's machine that is gone is noticed late, and a firewall may forget "
            "the connection.",
            set_connection_option(facts.alias, "keepalives_idle", 30),
        )
    else:
        yield fine("keepalives", f"After {ours} s of silence.")
    if theirs is not None and not 0 < theirs <= LONGEST_SILENCE_SECONDS and not server.pooler:
        yield warning(
            "server_keepalives",
            f"The server asks after {theirs} s of silence: a machine that vanished keeps its slots until then.",
            "ALTER SYSTEM SET tcp_keepalives_idle = 60; SELECT pg_reload_conf();",
        )


def pooler(facts: Facts) -> Iterator[Finding]:
    """Whether somebody stands between."""
    mode = facts.server.pooler
    if mode == "transaction":
        yield fine("pooler", "A pooler in transaction mode is in front: no session is yours for longer than that.")
    elif mode is not None:
        known = "in session mode" if mode == "session" else "in a mode that could not be told"
        yield fine("pooler", f"A pooler {known} is in front.")
    else:
        yield fine("pooler", "None in front.")


def version(facts: Facts) -> Iterator[Finding]:
    """Whether Django supports the server."""
    major, oldest = facts.server.version // 10000, facts.server.oldest_version
    if major < oldest:
        yield error(
            "version",
            f"PostgreSQL {major}; this Django supports {oldest} and later.",
            f"Upgrade the server to PostgreSQL {oldest} or later",
        )
    else:
        yield fine("version", f"PostgreSQL {major}; this Django supports {oldest} and later.")


def role(facts: Facts) -> Iterator[Finding]:
    """Who logs in, and to what."""
    if facts.server.superuser and not facts.server.local:
        yield warning(
            "role",
            f"The site logs in as a superuser, so the {facts.server.slots.reserved} reserved slots are no reserve: "
            "when the server is full you cannot log in to see why.",
            f"ALTER ROLE {facts.server.role} NOSUPERUSER;",
        )
    else:
        yield fine("role", "A superuser, on this machine." if facts.server.superuser else "Not a superuser.")
    if facts.server.read_only and facts.wanted_server not in READERS:
        yield warning(
            "read_only",
            "The server takes no writes: a standby, or read-only by default.",
            set_connection_option(facts.alias, "target_session_attrs", "read-write"),
        )


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    slots, pressure, statement_timeout, idle_sessions, idle_transactions, encryption, keepalives, pooler, version, role,
)  # fmt: skip
