"""physical.py: every connection that may still be open is known, and none is kept for that."""

from __future__ import annotations

import gc

from dbresilience.connection import ResilientConnection
from dbresilience.physical import PhysicalConnections
from tests.support.postgres import ThrowawayPostgres

from .conftest import MakeWrapper, pid_of


def test_one_that_nobody_refers_to_is_forgotten(postgres: ThrowawayPostgres) -> None:
    """The register is no reason to keep a connection."""
    known = PhysicalConnections()
    connection = ResilientConnection.connect(postgres.url())
    known.add(connection)
    assert known.all() == [connection]
    connection.close()
    del connection
    gc.collect()
    assert known.all() == []


def test_those_of_older_generations_are_known_too(make_wrapper: MakeWrapper) -> None:
    """As long as somebody works with them."""
    wrapper, other = make_wrapper(), make_wrapper()
    with wrapper.pinned():
        old = pid_of(wrapper)
        wrapper.resources.recycle()
        new = pid_of(other)
        pool = wrapper.resources.pool
        assert pool is not None
        assert {old, new} <= {connection.session_pid for connection in pool.recovery.physical.all()}
