"""A site whose way to its database can be broken."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.support.proxy import Proxy
from tests.support.site import Site


@pytest.fixture
def start_site_behind(start_site: Callable[..., Site], proxy: Proxy, database_url: str) -> Callable[..., Site]:
    """`start_site_behind(deadline_seconds=1)`: it reaches its database by way of `proxy`, with such options."""

    def start(*, env: dict[str, str] | None = None, worker_class: str = "gthread", **options: object) -> Site:
        query = "&".join(f"{name}={value}" for name, value in options.items())
        return start_site(url=f"{proxy.url(database_url)}?{query}", worker_class=worker_class, **env or {})

    return start
