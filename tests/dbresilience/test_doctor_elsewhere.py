"""`manage.py dbresilience doctor` and a server on another machine: who can read along, and when silence is noticed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from dbresilience.doctor import consult
from tests.support.postgres import ThrowawayPostgres
from tests.support.system_tools import missing_tool

from .conftest import MakeWrapper
from .pasting import paste
from .test_doctor import ONE, finding, of_database


@pytest.fixture
def elsewhere() -> Iterator[tuple[ThrowawayPostgres, str]]:
    """A server that is reached by an address of this machine which is not its loopback."""
    addresses = [
        each.address for those in psutil.net_if_addrs().values() for each in those
        if each.family == 2 and not each.address.startswith("127.")
    ]  # fmt: skip
    if not addresses:
        missing_tool("This machine has no address but its loopback")
    with ThrowawayPostgres(listen_addresses="'*'") as server:
        rules = server.data / "pg_hba.conf"
        rules.write_text(f"host all all all trust\n{rules.read_text()}")
        server.execute("SELECT pg_reload_conf()")
        yield server, addresses[0]


@pytest.mark.slow
def test_the_way_to_a_server_elsewhere(
    make_wrapper: MakeWrapper, elsewhere: tuple[ThrowawayPostgres, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No TLS, no keepalives, a superuser: nothing of that matters on one machine."""
    server, address = elsewhere
    wrapper = make_wrapper(url=server.url().replace("127.0.0.1", address))
    seen = consult(wrapper.alias, ONE)
    wrong = {each.name: each for each in seen.findings if each.severity != "fine"}
    assert set(wrong) == {"tls", "keepalives", "server_keepalives", "role"}
    assert paste(wrong["tls"].set) == {wrapper.alias: {"sslmode": "require"}}
    assert address not in json.dumps(seen.as_json())
    assert address in json.dumps(consult(wrapper.alias, ONE, show_addresses=True).as_json())
    assert "off" in finding(consult(wrapper_with(make_wrapper, server, address, keepalives=0), ONE), "keepalives").found
    server.execute("ALTER SYSTEM SET tcp_keepalives_idle = 60")
    server.execute("SELECT pg_reload_conf()")
    server.execute("CREATE ROLE plain LOGIN")
    url = f"postgresql://plain@{address}:{server.port}/postgres"
    mended = consult(make_wrapper(url=url, **paste(wrong["keepalives"].set)[wrapper.alias]).alias, ONE)
    assert {each.name for each in mended.findings if each.severity != "fine"} == {"tls"}


def wrapper_with(make: MakeWrapper, server: ThrowawayPostgres, address: str, **options: Any) -> str:
    return make(url=server.url().replace("127.0.0.1", address), **options).alias


def test_a_server_that_takes_no_writes(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """A standby, unless it is wanted."""
    postgres.execute(f'ALTER DATABASE "{of_database(database_url)}" SET default_transaction_read_only = on')
    assert finding(consult(make_wrapper().alias, ONE), "read_only").severity == "warning"
    assert consult(make_wrapper(target_session_attrs="read-only").alias, ONE).is_well
