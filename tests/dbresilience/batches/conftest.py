"""Wrappers whose statements travel together, and one of Django's own to compare them with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper as DjangosWrapper

from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.tables import create_tables
from tests.dbresilience.conftest import MakeWrapper, settings_for
from tests.support.proxy import Proxy


@pytest.fixture
def plain(database_url: str, django_db_blocker: Any) -> Iterator[DjangosWrapper]:
    """Django's own backend on the same tables."""
    settings = settings_for(database_url) | {"ENGINE": "django.db.backends.postgresql"}
    wrapper = DjangosWrapper(settings, "plain")
    connections.settings["plain"], connections["plain"] = wrapper.settings_dict, wrapper
    with django_db_blocker.unblock():
        yield wrapper
        wrapper.close()
    del connections.settings["plain"], connections["plain"]


@pytest.fixture
def ours(make_wrapper: MakeWrapper) -> DatabaseWrapper:
    wrapper = make_wrapper()
    create_tables(wrapper)
    return wrapper


@pytest.fixture
def far(make_wrapper: MakeWrapper, database_url: str, proxy: Proxy) -> DatabaseWrapper:
    """A wrapper whose round trips are counted."""
    wrapper = make_wrapper(url=proxy.url(database_url), pool={"max_size": 3})
    create_tables(wrapper)
    return wrapper


@pytest.fixture
def nothing_is_out(far: DatabaseWrapper) -> Iterator[None]:
    """Whatever happened, no connection is still lent, and none has anything left that waits."""
    yield
    assert far.resources.snapshot().in_use == 0
    pool = far.resources.pool
    assert pool is not None
    assert {each.batch for each in pool.recovery.physical.all()} <= {None}
