"""The way to the server: several hosts, keepalives, encryption, and servers that sleep."""

from __future__ import annotations

import os
from collections.abc import Iterator

from dbresilience.aliases import Alias

from .rules import Mistake, alias_check

ENCRYPTED = ("require", "verify-ca", "verify-full")


@alias_check("dbresilience.W013")
def check_which_host(alias: Alias) -> Iterator[Mistake]:
    """several hosts and no `target_session_attrs`: writes reach a standby."""
    told = alias.options.get("target_session_attrs") or os.environ.get("PGTARGETSESSIONATTRS")
    if len(alias.hosts) > 1 and not told and "load_balance_hosts" not in alias.options:
        yield Mistake(
            f"{alias.where} has {len(alias.hosts)} hosts, and takes the first that answers, a standby included: "
            "after a failover writes fail.",
            alias.connection_option("target_session_attrs", "read-write"),
        )


@alias_check("dbresilience.W014")
def check_keepalives(alias: Alias) -> Iterator[Mistake]:
    """TCP keepalives that are turned off: a server that vanished is waited for without end."""
    if str(alias.options.get("keepalives")) == "0" and not alias.is_local:
        yield Mistake(
            f"{alias.where}: OPTIONS['keepalives'] is 0, so nobody notices that the server's machine is gone.",
            f"{alias.connection_option('keepalives_idle', 30)}; remove keepalives",
        )


@alias_check("dbresilience.W015")
def check_sleeping_server(alias: Alias) -> Iterator[Mistake]:
    """`min_size` above 0 on a server that sleeps when nobody is connected (Neon): it never does."""
    least = alias.configuration.min_size
    if least and any(host.endswith(".neon.tech") for host in alias.hosts):
        yield Mistake(
            f"{alias.where}: pool.min_size is {least}, so each process keeps as many connections open, and the server "
            "never suspends.",
            f"{alias.option('resilience', 'scale_to_zero', True)}; remove min_size",
        )


@alias_check("dbresilience.W016", deploy=True)
def check_encryption(alias: Alias) -> Iterator[Mistake]:
    """a server elsewhere, and no `sslmode` that insists on encryption; with `check --deploy`."""
    mode = alias.options.get("sslmode") or os.environ.get("PGSSLMODE") or "prefer"
    if mode not in ENCRYPTED and not alias.is_local:
        yield Mistake(
            f"{alias.where}: the server is not on this machine, and sslmode is {mode!r}: data may travel in clear "
            "text, and nobody is told.",
            f"{alias.connection_option('sslmode', 'require')}; better verify-full, with sslrootcert",
        )


CHECKS = (check_which_host, check_keepalives, check_sleeping_server, check_encryption)
