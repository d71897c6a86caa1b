"""unavailable.py: 503 + Retry-After wherever the error surfaces, and nothing else becomes one."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import OperationalError
from django.test import AsyncClient, Client

from dbresilience import signals, unavailable

SITE = "tests.dbresilience.failing_site"


@pytest.fixture(params=[True, False], ids=["DEBUG", "production"])
def _site(request: pytest.FixtureRequest, settings: Any) -> None:
    settings.DEBUG = request.param
    settings.ROOT_URLCONF = SITE
    settings.MIDDLEWARE = [
        f"{SITE}.FailingMiddleware",
        "dbresilience.middleware.RequestContextMiddleware",
        f"{SITE}.InterruptedSessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        f"{SITE}.FailingMiddleware",
    ]


@pytest.fixture
def client(_site: None, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(unavailable, "_traceback_at", {})
    return Client(raise_request_exception=False)


PLACES = ["/view/{}", "/async/{}", "/rest/{}", "/rendered/{}", "/template-response/{}", "/chained/{}",
          "/fine?in={}", "/fine?out={}"]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["cut", "bare", "ours", "read-only"])
def test_every_place_answers_503(client: Client, place: str, kind: str) -> None:
    """View, async view, DRF, template, deferred template, middleware in and out."""
    response = client.get(place.format(kind))
    assert response.status_code == 503
    assert int(response["Retry-After"]) >= 1
    assert "10.1.2.3" not in response.content.decode()


@pytest.mark.usefixtures("_site")
@pytest.mark.parametrize("place", ["/view/{}", "/async/{}", "/rest/{}", "/fine?in={}"])
def test_under_asgi_too(place: str) -> None:
    """The async handler converts in the same place."""
    response = async_to_sync(AsyncClient(raise_request_exception=False).get)(place.format("cut"))
    assert response.status_code == 503
    assert response["Retry-After"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", ["integrity", "programming", "key"])
def test_mistakes_stay_500(client: Client, place: str, kind: str) -> None:
    """Not one bug is dressed up as an outage."""
    response = client.get(place.format(kind))
    assert response.status_code == 500
    assert "Retry-After" not in response


def test_a_statement_that_took_too_long_is_504(client: Client) -> None:
    """The server is there; the answer was not in time."""
    assert client.get("/view/timeout").status_code == 504


def test_a_session_that_cannot_be_saved_is_503_not_400(client: Client) -> None:
    """Django reports a deleted session, with the database error as mere context."""
    assert client.get("/fine?session=cut").status_code == 503


def test_an_error_page_that_needs_the_database(client: Client, settings: Any) -> None:
    """handler404 queries for its menu, and cannot."""
    # With DEBUG Django shows its own page, which does not query.
    assert client.get("/missing").status_code == (404 if settings.DEBUG else 503)


def test_people_get_a_page_that_reloads_itself(client: Client) -> None:
    """HTML for a browser; a POST is not repeated behind its back."""
    response = client.get("/view/cut", HTTP_ACCEPT="text/html,application/xhtml+xml,*/*;q=0.8")
    assert response["Content-Type"].startswith("text/html")
    assert "http-equiv" in response.content.decode()
    posted = client.post("/view/cut", HTTP_ACCEPT="text/html")
    assert posted.status_code == 503
    assert "http-equiv" not in posted.content.decode()


def test_a_statement_that_took_too_long_is_not_asked_for_again(client: Client) -> None:
    """A page that reloads itself would ask for ever."""
    response = client.get("/view/timeout", HTTP_ACCEPT="text/html")
    assert response.status_code == 504
    assert "http-equiv" not in response.content.decode()


def test_an_unknown_outcome_is_said(client: Client) -> None:
    """Neither "stored" nor "not stored" would be true."""
    body = json.loads(client.post("/view/unknown", HTTP_ACCEPT="application/json").content)
    assert body["outcome_unknown"] is True
    assert "may or may not" in body["detail"]
    page = client.post("/view/unknown", HTTP_ACCEPT="text/html").content.decode()
    assert "may or may not" in page
    assert "http-equiv" not in page
    # A page that was merely asked for is asked for again.
    assert "http-equiv" in client.get("/view/unknown", HTTP_ACCEPT="text/html").content.decode()


@pytest.mark.parametrize("accept", ["application/json", "*/*", "", "text/event-stream"])
def test_programs_get_problem_json(client: Client, accept: str) -> None:
    """RFC 9457, with the figure they need."""
    response = client.post("/view/starting", HTTP_ACCEPT=accept)
    assert response["Content-Type"] == "application/problem+json"
    body = json.loads(response.content)
    assert (body["status"], body["title"]) == (503, "Service Unavailable")
    assert body["retry_after"] == int(response["Retry-After"]) == 1


def test_the_original_is_logged_once_with_its_traceback(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """And Django adds nothing of its own."""
    client.get("/view/cut")
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in errors] == ["dbresilience.requests"]
    assert errors[0].exc_info is not None
    assert isinstance(errors[0].exc_info[1], OperationalError)
    assert "GET /view/cut answered 503: connection_lost" in errors[0].getMessage()


def test_an_outage_does_not_fill_the_log_with_tracebacks(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """The first of a kind has one, those of the next seconds are one line each."""
    for _ in range(3):
        client.get("/view/cut")
    client.get("/view/deadlock")
    errors = [record for record in caplog.records if record.name == "dbresilience.requests"]
    assert [record.exc_info is not None for record in errors] == [True, False, False, True]
    assert "\n" not in errors[1].getMessage()


def test_the_signal_tells_why(client: Client) -> None:
    """For counters and error trackers."""
    seen: list[dict[str, Any]] = []

    def receiver(sender: str, **details: Any) -> None:
        seen.append(details)

    signals.request_refused.connect(receiver)
    try:
        client.get("/view/deadlock")
    finally:
        signals.request_refused.disconnect(receiver)
    assert [(each["status"], each["classification"].name) for each in seen] == [(503, "serialization")]


def test_installing_twice_changes_nothing(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    """Both ENGINE and INSTALLED_APPS bring it; reload re-runs it."""
    unavailable.install()
    unavailable.install()
    assert client.get("/view/cut").status_code == 503
    assert client.get("/view/key").status_code == 500
    assert len([record for record in caplog.records if record.name == "dbresilience.requests"]) == 1
