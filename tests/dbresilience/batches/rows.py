"""The rows of one wrapper: made, asked for and counted in few words."""

from __future__ import annotations

import time
from typing import Any

from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.programs import key
from tests.dbresilience.batches.tables import Item, Owner
from tests.support.postgres import ThrowawayPostgres


def owners(wrapper: Any) -> Any:
    return Owner._default_manager.using(wrapper.alias)


def items(wrapper: Any) -> Any:
    return Item._default_manager.using(wrapper.alias)


def create(wrapper: Any, number: int, **values: Any) -> Owner:
    made: Owner = owners(wrapper).create(id=key(number), **{"name": f"owner {number}", **values})
    return made


def names(wrapper: Any) -> list[str]:
    return list(owners(wrapper).order_by("pk").values_list("name", flat=True))


def run_waiting(wrapper: DatabaseWrapper, query: str) -> None:
    """Execute what nobody asks the result of."""
    with wrapper.cursor() as cursor:
        cursor.execute(query)


def end_session(postgres: ThrowawayPostgres, pid: int) -> None:
    postgres.execute(f"SELECT pg_terminate_backend({pid})")
    time.sleep(0.05)
