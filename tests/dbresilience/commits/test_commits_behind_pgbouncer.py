"""commits.py behind PgBouncer in transaction mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbresilience import CommitOutcomeUnknown, retry
from tests.dbresilience.conftest import MakeWrapper, run
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy

from .conftest import insert, stored


@pytest.fixture
def bouncer_port(postgres: ThrowawayPostgres) -> Iterator[int]:
    with pgbouncer(postgres, postgres.port) as port:
        yield port


@pytest.mark.parametrize(("after", "runs"), [(SEEN, 2), (SENT, 1), (ANSWERED, 1)])
def test_behind_pgbouncer_too(
    make_wrapper: MakeWrapper, database_url: str, bouncer_port: int, looked_up: list[str], after: str, runs: int
) -> None:
    """Each transaction may run on another session, and the one that looks is another still."""
    ran: list[int] = []
    with Proxy(bouncer_port) as proxy:
        database = database_url.rpartition("/")[2]
        wrapper = make_wrapper(url=f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}")
        run(wrapper, "CREATE TABLE kept (n int PRIMARY KEY)")

        @retry(using=wrapper.alias)
        def unit() -> None:
            ran.append(1)
            insert(wrapper, 1)

        proxy.cut_when(is_commit, after=after)
        unit()
        assert len(ran) == runs
        assert len(looked_up) == 1
        assert run(wrapper, "SELECT n FROM kept") == [(1,)]
        wrapper.close()
        wrapper.resources.close()


def test_a_write_that_pgbouncer_lost_its_server_for_is_of_unknown_outcome(
    make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str
) -> None:
    """PgBouncer's own errors have no severity that is not translated, and yet its client's session is over."""
    ran: list[int] = []
    with Proxy(postgres.port) as proxy, pgbouncer(postgres, proxy.port) as port:
        wrapper = make_wrapper(url=f"postgresql://postgres@127.0.0.1:{port}/{database_url.rpartition('/')[2]}")
        run(wrapper, "CREATE TABLE kept (n int)")
        proxy.cut_when(lambda message: message.sql.startswith("INSERT"), after=ANSWERED, how="close")

        @retry(using=wrapper.alias)
        def unit() -> None:
            ran.append(1)
            run(wrapper, "INSERT INTO kept VALUES (1)")

        with pytest.raises(CommitOutcomeUnknown):
            unit()
        wrapper.close()
        wrapper.resources.close()
    assert ran == [1]
    assert stored(postgres, database_url) == [1]
