"""hosts.py: the order in which the hosts of a writer are tried."""

from __future__ import annotations

from typing import Any

import pytest
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured

from dbresilience.connection import ResilientConnection
from dbresilience.hosts import host_order
from tests.support.postgres import ThrowawayPostgres
from tests.support.proxy import Proxy

from .conftest import MakeWrapper, pid_of


@pytest.mark.parametrize(
    ("parameters", "ordered"),
    [
        ({"host": "a,b", "target_session_attrs": "read-write"}, True),
        ({"host": "a,b", "port": 5433, "target_session_attrs": "primary"}, True),
        ({"host": "a", "target_session_attrs": "read-write"}, False),
        ({"host": "a,b", "target_session_attrs": "prefer-standby"}, False),
        ({"host": "a,b"}, False),
        ({"host": "a,b", "target_session_attrs": "primary", "load_balance_hosts": "random"}, False),
        ({"host": "a,b", "target_session_attrs": "primary", "hostaddr": "1.1.1.1,2.2.2.2"}, False),
    ],
)
def test_only_a_writers_hosts_are_put_in_order(parameters: dict[str, Any], ordered: bool) -> None:
    """A reader may prefer one of them, and says so by their order."""
    assert (host_order("default", parameters) is not None) == ordered


def order(host: str, port: object = None) -> dict[str, str]:
    found = host_order("default", {"host": host, "port": port, "target_session_attrs": "read-write"})
    assert found is not None
    return found.arguments()


@pytest.mark.parametrize(("port", "ports"), [(None, "5432,5432,5432"), (5433, "5433,5433,5433"), ("1,2,3", "1,2,3")])
def test_one_port_is_for_all_hosts(port: object, ports: str) -> None:
    """As libpq has it."""
    assert order("a,b,c", port) == {"host": "a,b,c", "port": ports}


@pytest.mark.parametrize(("host", "port"), [("a,b,c", "1,2"), ("a,b", "1,2,3")])
@pytest.mark.parametrize("wanted", ["read-write", "any"])
def test_a_host_without_its_port_is_refused(make_wrapper: MakeWrapper, host: str, port: str, wanted: str) -> None:
    """Which one is meant is not for us to guess; the settings are named, the hosts are not."""
    wrapper = make_wrapper(target_session_attrs=wanted)
    with pytest.MonkeyPatch.context() as given:
        given.setitem(wrapper.settings_dict, "HOST", host)
        given.setitem(wrapper.settings_dict, "PORT", port)
        with pytest.raises(ImproperlyConfigured, match=rf"'{wrapper.alias}'.*HOST.*PORT.*one port for") as caught:
            pid_of(wrapper)
    assert host not in str(caught.value)


def test_hosts_and_ports_that_do_not_fit_stop_the_start(make_wrapper: MakeWrapper) -> None:
    """And not the first request only, like every other value that is impossible."""
    wrapper = make_wrapper()
    with pytest.MonkeyPatch.context() as given:
        given.setitem(wrapper.settings_dict, "HOST", "a,b")
        given.setitem(wrapper.settings_dict, "PORT", "1,2,3")
        with pytest.raises(ImproperlyConfigured, match=rf"'{wrapper.alias}'.*HOST.*PORT.*one port for"):
            apps.get_app_config("dbresilience").ready()


def test_without_a_pool_the_host_that_answered_is_remembered_too(
    make_wrapper: MakeWrapper, database_url: str, postgres: ThrowawayPostgres, proxy: Proxy
) -> None:
    """A dead machine at the head of the list delays the first connection only."""
    wrapper = make_wrapper(url=database_url, pool=False, target_session_attrs="read-write")
    proxy.deny("57P03", "the database system is starting up")
    with pytest.MonkeyPatch.context() as given:
        given.setitem(wrapper.settings_dict, "HOST", "127.0.0.1,127.0.0.1")
        given.setitem(wrapper.settings_dict, "PORT", f"{proxy.port},{postgres.port}")
        for _ in range(3):
            pid_of(wrapper)
            wrapper.close()
        wrapper.resources.health()
    assert len(proxy.opened_at) == 1


def test_the_host_that_answered_comes_first(postgres: ThrowawayPostgres) -> None:
    """And the others stay in their order."""
    found = host_order("default", {
        "host": "a,127.0.0.1,c", "port": f"1,{postgres.port},3", "target_session_attrs": "primary",
    })  # fmt: skip
    assert found is not None
    connection = ResilientConnection.connect(postgres.url())
    with connection:
        found.remember(connection)
    assert found.arguments() == {"host": "127.0.0.1,a,c", "port": f"{postgres.port},1,3"}
