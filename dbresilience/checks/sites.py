"""How a site uses its database: what holds connections, what stands in the way of the probes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from django.apps import apps
from django.conf import settings
from django.db import connections
from psycopg_pool import ConnectionPool

from dbresilience.aliases import Alias, every_alias
from dbresilience.identity import database_of

from .rules import Mistake, alias_check, site_check

PROBES = "dbresilience.middleware.ProbeMiddleware"


def _keeps_connections(alias: Alias) -> bool:
    age = alias.given.get("CONN_MAX_AGE", 0)
    if connections[alias.name].vendor != "postgresql" or age == 0 or isinstance(age, str):
        return False
    return not (alias.is_ours and alias.configuration.pooled)


@alias_check("dbresilience.W017", only=_keeps_connections)
def check_kept_connections(alias: Alias) -> Iterator[Mistake]:
    """connections kept without a pool and without a look whether they live."""
    if not alias.given.get("CONN_HEALTH_CHECKS"):
        yield Mistake(
            f"{alias.where} keeps connections (CONN_MAX_AGE is {alias.given['CONN_MAX_AGE']!r}) and does not look "
            "whether they live: after a restart of the server the first request of each thread fails.",
            f"{alias.entry('CONN_HEALTH_CHECKS', True)}; or ENGINE dbresilience with its pool, and CONN_MAX_AGE 0",
        )


@alias_check("dbresilience.W018")
def check_atomic_requests(alias: Alias) -> Iterator[Mistake]:
    """ATOMIC_REQUESTS: a request holds its connection from its first query until its view ends, whatever it awaits."""
    if alias.given.get("ATOMIC_REQUESTS") and alias.configuration.lease == "transaction":
        yield Mistake(
            f"{alias.where}: ATOMIC_REQUESTS makes each view one transaction, which holds a connection while the view "
            f"waits for a model or another service: {alias.configuration.max_size} such requests fill the pool.",
            f"{alias.entry('ATOMIC_REQUESTS', False)}, and transaction.atomic() around what belongs together; or "
            "@transaction.non_atomic_requests on views that wait, and silence this check",
        )


@alias_check("dbresilience.W019")
def check_lease_under_asgi(alias: Alias) -> Iterator[Mistake]:
    """`lease` is `request` in a site with ASGI, where a stream that breaks off does not end its request."""
    asgi = getattr(settings, "ASGI_APPLICATION", None) or "daphne" in settings.INSTALLED_APPS
    if asgi and alias.configuration.lease == "request":
        yield Mistake(
            f"{alias.where}: lease is 'request', and the site has ASGI: an open stream holds its connection "
            "to its end, and one that raises may never say that it is over.",
            alias.option("resilience", "lease", "transaction"),
        )


@alias_check("dbresilience.W020")
def check_round_trips(alias: Alias) -> Iterator[Mistake]:
    """psycopg_pool's `check_connection`: one round trip more for each transaction."""
    if alias.configuration.check == ConnectionPool.check_connection:
        yield Mistake(
            f"{alias.where}: pool.check is ConnectionPool.check_connection, one round trip before each transaction. "
            "Each connection is looked at anyway, at no round trip.",
            f"Remove check from OPTIONS['pool'] of {alias.where}",
        )


@site_check("dbresilience.W021")
def check_two_pools() -> Iterator[Mistake]:
    """two aliases for one user of one database: two pools, and two transactions that do not see each other."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for alias in every_alias():
        if alias.is_ours and alias.configuration.pooled:
            wanted = str(alias.options.get("target_session_attrs") or "any")
            mirror = str((alias.given.get("TEST") or {}).get("MIRROR") or "")
            found[(*database_of({"HOST": "", "PORT": "", "NAME": "", **alias.given}),
                   str(alias.given.get("USER") or ""), wanted, mirror)].append(alias.name)  # fmt: skip
    for names in found.values():
        if len(names) > 1:
            sizes = [alias.configuration.max_size for alias in every_alias() if alias.name in names]
            yield Mistake(
                f"{' and '.join(f'DATABASES[{name!r}]' for name in names)} are one database for one user: each "
                f"process opens up to {' + '.join(map(str, sizes))} = {sum(sizes)} connections, and what one has not "
                "committed the other does not see.",
                f"Use one alias: remove DATABASES[{names[-1]!r}]. Or silence this check, and count all of them",
            )


@site_check("dbresilience.W022")
def check_order_of_middleware() -> Iterator[Mistake]:
    """ProbeMiddleware behind middleware of Django, which answers a probe with 400 or a redirect."""
    middleware = list(settings.MIDDLEWARE or [])
    if PROBES not in middleware:
        return
    before = [path for path in middleware[: middleware.index(PROBES)] if path.startswith("django.")]
    if before:
        yield Mistake(
            f"MIDDLEWARE has {before[0]!r} before {PROBES!r}: a probe that comes by address or without TLS gets 400 "
            "or a redirect, and an orchestrator ends a process that is well.",
            f"MIDDLEWARE = [{PROBES!r}, …]",
        )


@alias_check("dbresilience.W023", deploy=True)
def check_parameters_in_logs(alias: Alias) -> Iterator[Mistake]:
    """`slow_query_parameters`: what people have typed is written to the log; with `check --deploy`."""
    if alias.configuration.slow_query_parameters:
        yield Mistake(
            f"{alias.where}: slow_query_parameters is on, so the log has what people have typed.",
            alias.option("resilience", "slow_query_parameters", False),
        )


@site_check("dbresilience.W025", deploy=True)
def check_app() -> Iterator[Mistake]:
    """the engine without the app, which has all but the connections themselves; with `check --deploy`."""
    if not apps.is_installed("dbresilience"):
        yield Mistake(
            "The engine is in use, and INSTALLED_APPS has no 'dbresilience': its commands, dashboard and metrics are "
            "missing, no process warms up, and a wrong option is found by the first request.",
            "INSTALLED_APPS += ['dbresilience']",
        )


CHECKS = (
    check_kept_connections, check_atomic_requests, check_lease_under_asgi, check_round_trips, check_two_pools,
    check_order_of_middleware, check_parameters_in_logs,
    check_app,
)  # fmt: skip
