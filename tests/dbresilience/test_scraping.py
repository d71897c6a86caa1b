"""scraping.py: `/metrics` is closed unless told otherwise, and opens no connection."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.views.debug import SafeExceptionReporterFilter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from dbresilience import scraping
from dbresilience.middleware import ProbeMiddleware

SECRET = "s3cret-of-the-scraper"


def test_it_is_closed_by_default(settings: Any) -> None:
    """As if it were not there; and a mistake in a subclass of the middleware opens nothing."""
    del settings.DBRESILIENCE_METRICS_ACCESS
    response = Client().get("/metrics", HTTP_HOST="10.0.0.7")
    assert (response.status_code, response.content) == (404, b"")


@pytest.mark.parametrize("path", ["/metrics", "/metrics?x=1"])
def test_open_it_answers_any_host(settings: Any, path: str) -> None:
    settings.DBRESILIENCE_METRICS_ACCESS = "open"
    settings.ALLOWED_HOSTS = ["example.com"]
    response = Client().get(path, HTTP_HOST="10.0.0.7")
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain")
    assert response["Cache-Control"] == "no-store"
    assert "db_client_connection_count" in {family.name for family in parse(response.content.decode())}


def test_openmetrics_for_those_who_ask_for_it(settings: Any) -> None:
    settings.DBRESILIENCE_METRICS_ACCESS = "open"
    response = Client().get("/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert response["Content-Type"].startswith("application/openmetrics-text")
    assert "dbresilience_leases" in {family.name for family in parse_openmetrics(response.content.decode())}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (f"Bearer {SECRET}", 200),
        (f"bearer {SECRET}", 200),
        ("Bearer wrong", 401),
        ("Bearer ", 401),
        (f"Basic {SECRET}", 401),
        (SECRET, 401),
        ("Bearer schlüssel", 401),
    ],
)
def test_a_token_opens_it(settings: Any, given: str | None, status: int) -> None:
    settings.DBRESILIENCE_METRICS_ACCESS, settings.DBRESILIENCE_METRICS_TOKEN = "token", SECRET
    response = Client().get("/metrics", headers={} if given is None else {"Authorization": given})
    assert response.status_code == status
    assert (response.get("WWW-Authenticate") == "Bearer") is (status == 401)
    assert (b"db_client" in response.content) is (status == 200)


def test_under_asgi(settings: Any) -> None:
    settings.DBRESILIENCE_METRICS_ACCESS, settings.DBRESILIENCE_METRICS_TOKEN = "token", SECRET
    get = async_to_sync(AsyncClient().get)
    assert get("/metrics").status_code == 401
    assert get("/metrics", headers={"Authorization": f"Bearer {SECRET}"}).status_code == 200


def test_other_methods_are_not_for_it(settings: Any) -> None:
    settings.DBRESILIENCE_METRICS_ACCESS = "open"
    went_on: list[str] = []

    def site(request: HttpRequest) -> HttpResponse:
        went_on.append(request.method or "")
        return HttpResponse(status=405)

    request = HttpRequest()
    request.method, request.path_info = "POST", "/metrics"
    assert ProbeMiddleware(site)(request).status_code == 405  # type: ignore[union-attr]
    assert went_on == ["POST"]


def test_a_scrape_opens_no_connection(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor asks one: no database mark on this test, so that a query would fail it."""
    settings.DBRESILIENCE_METRICS_ACCESS = "open"
    dialled: list[object] = []
    monkeypatch.setattr(psycopg.Connection, "connect", dialled.append)
    monkeypatch.setattr("dbresilience.connection.ResilientConnection.connect", dialled.append)
    for _ in range(3):
        assert Client().get("/metrics").status_code == 200
    assert not dialled


@pytest.mark.parametrize(
    ("given", "token"),
    [("", ""), ("public", ""), ("OPEN", ""), ("token", ""), ("token", None), ("token", f"{SECRET} b"), ("open", SECRET),
     ("closed", SECRET), (f"token:{SECRET}", ""), (True, ""), (None, ""), (7, "")],
)  # fmt: skip
def test_a_wrong_value_stops_the_start(settings: Any, given: object, token: object) -> None:
    """And is never open; a secret with a mistake in it is not shown."""
    settings.DBRESILIENCE_METRICS_ACCESS, settings.DBRESILIENCE_METRICS_TOKEN = given, token
    with pytest.raises(ImproperlyConfigured, match="DBRESILIENCE_METRICS_ACCESS must be") as caught:
        scraping.install()
    assert SECRET not in str(caught.value)


def test_the_token_is_kept_out_of_error_pages(settings: Any) -> None:
    settings.DBRESILIENCE_METRICS_ACCESS, settings.DBRESILIENCE_METRICS_TOKEN = "token", SECRET
    shown = SafeExceptionReporterFilter().get_safe_settings()
    assert shown["DBRESILIENCE_METRICS_TOKEN"] != SECRET
    assert SECRET not in repr(scraping.Access.from_settings())


def test_without_the_library_it_says_what_to_install(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closed needs nothing, open does."""
    monkeypatch.setattr(scraping, "find_spec", lambda name: None)
    settings.DBRESILIENCE_METRICS_ACCESS = "closed"
    scraping.install()
    settings.DBRESILIENCE_METRICS_ACCESS = "open"
    with pytest.raises(ImproperlyConfigured, match="pip install"):
        scraping.install()
