"""What a production site writes to stderr: one JSON object a line, from the server and from the site alike."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable

import pytest

from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("worker_class", ["gthread", "asgi"])
def test_every_line_is_json(start_site: Callable[..., Site], postgres: ThrowawayPostgres, worker_class: str) -> None:
    """Start, a request that works, one that an outage refuses, and the end; no line for a request that went well."""
    site = start_site(worker_class=worker_class)
    assert site.answers("/accounts/login/")
    urllib.request.urlopen(urllib.request.Request(f"{site.url}/accounts/login/", method="HEAD")).close()
    postgres.stop()
    with pytest.raises(urllib.error.HTTPError, match="503") as refused:
        urllib.request.urlopen(urllib.request.Request(f"{site.url}/", headers={"Cookie": f"sessionid={32 * 'k'}"}))
    refused.value.close()
    site.stop()
    told = [json.loads(line) for line in site.log.splitlines()]
    assert {"gunicorn.error", "dbresilience.requests"} <= {line["logger"] for line in told}
    assert all({"time", "level", "message"} <= set(line) for line in told)
    assert not [line for line in told if "/accounts/login/" in line["message"] or "HEAD" in line["message"]]
