"""What breaks behind a pooler in transaction mode: PgBouncer, Neon's `-pooler` hosts, Supabase's port 6543.

There two transactions of one client run on two sessions of the server, so what belongs to a session is lost, or met
by somebody else. A `doctor` that has found a pooler asks the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator

from dbresilience.aliases import Alias

from .rules import Check, Mistake, Rule, alias_check

PORTS = {"6432": "PgBouncer's usual port", "6543": "Supabase's port for transactions"}
_SESSION_MODE = "(if the pooler is in session mode, silence this check)"


def signs_of_pooler(alias: Alias) -> str:
    """Return what about the address says that a pooler is there; an empty text if nothing does."""
    for port in sorted(PORTS.keys() & alias.ports):
        return f"port {port} is {PORTS[port]}"
    if any("-pooler." in host for host in alias.hosts):
        return "the host is a pooler by its name"
    return ""


def server_side_cursors(alias: Alias) -> Iterator[Mistake]:
    """server-side cursors, which `iterator()` uses, behind a pooler in transaction mode."""
    if not alias.given.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield Mistake(
            f"{alias.where} uses server-side cursors: outside a transaction iterator() fails with "
            "'cursor \"_django_curs_…\" does not exist'.",
            alias.entry("DISABLE_SERVER_SIDE_CURSORS", True),
        )


def prepared_statements(alias: Alias) -> Iterator[Mistake]:
    """prepared statements behind a pooler in transaction mode."""
    threshold = alias.options.get("prepare_threshold")
    if threshold is not None:
        yield Mistake(
            f"{alias.where}: OPTIONS['prepare_threshold'] is {threshold!r}, so statements are prepared: "
            "'prepared statement \"_pg3_0\" already exists', unless it is PgBouncer 1.21 or later with "
            "max_prepared_statements.",
            alias.entry("OPTIONS", {"prepare_threshold": None}),
        )


def _role(alias: Alias) -> str:
    user = str(alias.given.get("USER") or "")
    return '"{}"'.format(user.replace('"', '""')) if user else "CURRENT_ROLE"


def startup_options(alias: Alias) -> Iterator[Mistake]:
    """libpq's `options`, which poolers refuse."""
    if alias.options.get("options"):
        yield Mistake(
            f"{alias.where} sends OPTIONS['options']: 'unsupported startup parameter: options'.",
            f"Remove it, and set the same on the server: ALTER ROLE {_role(alias)} SET search_path = …;",
        )


def session_settings(alias: Alias) -> Iterator[Mistake]:
    """`statement_timeout_seconds` and `assume_role` behind a pooler: set on a session, which is other clients', too."""
    if alias.configuration.statement_timeout_seconds is not None:
        seconds = alias.configuration.statement_timeout_seconds
        yield Mistake(
            f"{alias.where}: statement_timeout_seconds is {seconds:g}, which is set once for each session. Here "
            "sessions are other clients', too: some have it and some have not.",
            "Remove it, and set the same on the server: "
            f"ALTER ROLE {_role(alias)} SET statement_timeout = '{seconds:g}s';",
        )
    if role := alias.options.get("assume_role"):
        yield Mistake(
            f"{alias.where}: OPTIONS['assume_role'] is {role!r}, which is set once for each session: statements may "
            "run as somebody else.",
            "Log in as that role, and remove assume_role",
        )


def _only_with_signs(rule: Rule) -> Rule:
    def check(alias: Alias) -> Iterator[Mistake]:
        if signs := signs_of_pooler(alias):
            for found, hint in rule(alias):
                yield Mistake(f"{found} A pooler is in front of the server: {signs}.", f"{hint} {_SESSION_MODE}")

    check.__name__, check.__doc__ = rule.__name__, rule.__doc__
    return check


RULES: dict[str, Rule] = {
    "dbresilience.W004": server_side_cursors,
    "dbresilience.W005": prepared_statements,
    "dbresilience.W006": startup_options,
    "dbresilience.W007": session_settings,
}
CHECKS: tuple[Check, ...] = tuple(alias_check(identity)(_only_with_signs(rule)) for identity, rule in RULES.items())
