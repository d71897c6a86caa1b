"""batches.py behind PgBouncer in transaction mode."""

from __future__ import annotations

import pytest
from django.db import IntegrityError

from dbresilience import CommitOutcomeUnknown, gather, pipeline, retry
from tests.dbresilience.batches.rows import create, items, names, owners
from tests.dbresilience.batches.tables import create_tables
from tests.dbresilience.conftest import MakeWrapper
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import is_commit
from tests.support.proxy import ANSWERED, Proxy


def test_behind_pgbouncer_too(make_wrapper: MakeWrapper, postgres: ThrowawayPostgres, database_url: str) -> None:
    """A pipeline is one round trip, an error leaves nothing behind, and what was lost goes again."""
    with pgbouncer(postgres, postgres.port) as port, Proxy(port) as proxy:
        database = database_url.rpartition("/")[2]
        wrapper = make_wrapper(url=f"postgresql://postgres@127.0.0.1:{proxy.port}/{database}")
        create_tables(wrapper)
        before = proxy.round_trips
        with pipeline(using=wrapper.alias):
            create(wrapper, 1)
            owners(wrapper).update(points=1)
        assert proxy.round_trips - before == 1
        assert gather(owners(wrapper).count, items(wrapper), using=wrapper.alias) == [1, []]
        assert proxy.round_trips - before == 2
        with pytest.raises(IntegrityError), pipeline(using=wrapper.alias):
            create(wrapper, 2)
            create(wrapper, 1)
        proxy.cut_when(is_commit, after=ANSWERED)
        with pytest.raises(CommitOutcomeUnknown), pipeline(using=wrapper.alias):
            create(wrapper, 3)
        proxy.cut_when(is_commit, after=ANSWERED)

        @retry(using=wrapper.alias, idempotent=True)
        @pipeline(using=wrapper.alias)
        def again() -> None:
            owners(wrapper).filter(name="owner 1").update(points=9)

        again()
        assert names(wrapper) == ["owner 1", "owner 3"]
        assert owners(wrapper).get(name="owner 1").points == 9
