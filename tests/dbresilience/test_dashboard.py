"""The dashboard in Django admin: who may see it, also while the database, which knows that, is away."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import Permission, User
from django.core import signing
from django.core.management import call_command
from django.db import ConnectionHandler, connection, connections
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import path

from dbresilience import get_database_resources
from dbresilience.contrib.dashboard import access, outage_pass, pages
from dbresilience.contrib.dashboard.outage_pass import COOKIE, LONGEST_SECONDS
from dbresilience.errors import DatabaseUnavailable
from tests.support.ports import free_port

pytestmark = pytest.mark.django_db

PAGE = "/admin/dbresilience/dashboard/"
DATA = f"{PAGE}data"


@pytest.fixture
def operator() -> User:
    """Somebody of the staff who may see the dashboard and nothing else."""
    user = User.objects.create_user("operator", password="operator", is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_dashboard"))
    return user


@pytest.fixture
def browser(operator: User) -> Client:
    client = Client(raise_request_exception=False)
    client.force_login(operator)
    return client


MAY_SEE = "dbresilience.contrib.dashboard.pages.DashboardAdmin._may_see"


@contextmanager
def away() -> Iterator[None]:
    """As if the database could not be asked who somebody is; that it really is away is tested in tests/browser."""

    def refuse(*args: Any) -> bool:
        raise DatabaseUnavailable("away", retry_after_seconds=1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MAY_SEE, refuse)
        yield


def test_it_is_in_the_menu_of_those_who_may_see_it(browser: Client) -> None:
    assert PAGE in browser.get("/admin/").content.decode()


@pytest.mark.parametrize("path", [PAGE, DATA])
def test_who_may_see_it(browser: Client, operator: User, path: str) -> None:
    """Superusers and staff with the permission; nobody else."""
    assert browser.get(path).status_code == 200
    User.objects.filter(pk=operator.pk).update(is_staff=False)
    assert browser.get(path).status_code in (302, 403)
    User.objects.filter(pk=operator.pk).update(is_staff=True)
    operator.user_permissions.clear()
    assert browser.get(path).status_code == 403
    User.objects.filter(pk=operator.pk).update(is_superuser=True)
    assert browser.get(path).status_code == 200


def test_strangers_are_asked_to_log_in() -> None:
    stranger = Client()
    answer = stranger.get(PAGE)
    assert (answer.status_code, answer["Location"]) == (302, f"/admin/login/?next={PAGE}")
    assert stranger.get(DATA).status_code == 403
    assert COOKIE not in stranger.cookies


@pytest.mark.parametrize("options", [[], ["--all"]])
def test_it_has_no_objects_to_dump(operator: User, options: list[str]) -> None:
    """A project that has the app can dump its data: there is no table of ours to look into."""
    dumped = StringIO()
    call_command("dumpdata", *options, stdout=dumped)
    models = {each["model"] for each in json.loads(dumped.getvalue())}
    assert "auth.user" in models
    assert "dbresilience.dashboard" not in models


def test_nothing_can_be_changed(browser: Client) -> None:
    assert browser.post(DATA).status_code == 405
    assert browser.get(f"{PAGE}add/").status_code == 404


def test_the_figures(browser: Client) -> None:
    """Never kept by anybody on the way; later polls bring the newest points only."""
    answer = browser.get(DATA, {"window": "300"})
    facts = answer.json()
    assert answer["Cache-Control"] == "no-store"
    assert len(facts["series"]["t"]) == 300
    assert {"headline", "together", "processes", "server", "events", "slow_queries"} <= set(facts)
    assert facts["by_pass"] is False
    later = browser.get(DATA, {"after": facts["series"]["t"][-1] - 3})
    assert 3 <= len(later.json()["series"]["t"]) <= 5
    assert len(later.content) < len(answer.content) / 2
    for wrong in ({"window": "7"}, {"window": "x"}, {"after": "nan"}, {"after": "-1"}, {"database": "other"}):
        assert browser.get(DATA, wrong).status_code == 400
    database = settings.DATABASES["default"]
    for secret in (database["PASSWORD"], database["HOST"]):
        assert not secret or secret not in answer.content.decode()


def test_the_page_runs_nothing_that_is_in_it(browser: Client) -> None:
    """So that a Content-Security-Policy without unsafe-inline lets it work."""
    page = browser.get(PAGE).content.decode()
    own = page.split('<div id="content"')[1].split("<!-- END Content -->")[0]
    assert "<script" not in own
    assert " style=" not in own
    assert " onclick" not in own
    for script in page.split("<script")[1:]:
        assert " src=" in script.split(">")[0]


def test_the_pass_is_for_this_page_and_no_script(browser: Client) -> None:
    browser.get(PAGE)
    cookie = browser.cookies[COOKIE]
    assert (cookie["path"], cookie["samesite"], cookie["httponly"]) == (PAGE, "Strict", True)
    assert cookie["max-age"] == LONGEST_SECONDS <= 12 * 3600
    session = browser.cookies[settings.SESSION_COOKIE_NAME].value
    assert session not in cookie.value
    assert "operator" not in str(signing.loads(cookie.value, salt=outage_pass._SALT))


def test_without_a_pass_an_outage_is_one(browser: Client) -> None:
    with away():
        assert browser.get(DATA).status_code == 503
        assert browser.get(PAGE).status_code == 503


def test_who_has_seen_it_goes_on_seeing_it_while_the_database_is_away(browser: Client, operator: User) -> None:
    """The figures, and the page anew, without a query and without being logged out. Then the database counts again."""
    browser.get(PAGE)
    session = browser.cookies[settings.SESSION_COOKIE_NAME].value
    with away(), CaptureQueriesContext(connection) as asked:
        facts, page = browser.get(DATA), browser.get(PAGE)
    assert asked.captured_queries == []
    assert (facts.status_code, facts.json()["by_pass"]) == (200, True)
    assert page.status_code == 200
    assert b"data-headline" in page.content
    assert b"operator" not in page.content
    assert browser.cookies[settings.SESSION_COOKIE_NAME].value == session

    operator.user_permissions.clear()
    refused = browser.get(DATA)
    assert refused.status_code == 403  # the pass counts for nothing while the database can be asked
    assert browser.cookies[COOKIE].value == ""


@pytest.mark.parametrize("what", ["tampered", "expired", "another session", "logged out", "another's signature"])
def test_a_pass_that_is_not_theirs_is_refused(browser: Client, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    browser.get(PAGE)
    given = browser.cookies[COOKIE].value
    if what == "tampered":
        browser.cookies[COOKIE] = given[:-1] + ("a" if given[-1] != "a" else "b")
    elif what == "expired":
        monkeypatch.setattr(outage_pass, "LONGEST_SECONDS", -1)
    elif what == "another session":
        browser.cookies[settings.SESSION_COOKIE_NAME] = "0123456789abcdef0123456789abcdef"
    elif what == "logged out":
        browser.post("/admin/logout/")
    else:
        browser.cookies[COOKIE] = signing.dumps(signing.loads(given, salt=outage_pass._SALT), salt="another")
    with away():
        assert browser.get(DATA).status_code == 503
        assert browser.get(PAGE).status_code == 503


@pytest.fixture
def atomic_elsewhere(settings: Any) -> Iterator[None]:
    """A second database, away, whose ATOMIC_REQUESTS begins a transaction before each view."""
    connections.settings["elsewhere"] = {
        **connection.settings_dict, "ENGINE": "django.db.backends.postgresql", "OPTIONS": {}, "ATOMIC_REQUESTS": True,
        "HOST": "127.0.0.1", "PORT": str(free_port()),
    }  # fmt: skip
    urls = ModuleType("urls_of_a_site_with_two_databases")
    vars(urls)["urlpatterns"] = [path("admin/", admin.site.urls), path("view", lambda request: HttpResponse())]
    settings.ROOT_URLCONF = urls
    yield
    del connections["elsewhere"]
    del connections.settings["elsewhere"]


def test_transactions_of_another_database_do_not_stand_before_it(browser: Client, atomic_elsewhere: None) -> None:
    """Neither for who is logged in, nor for strangers, nor for who comes with a pass."""
    assert browser.get("/view").status_code in (500, 503)
    assert [browser.get(each).status_code for each in (PAGE, DATA)] == [200, 200]
    assert [Client().get(each).status_code for each in (PAGE, DATA)] == [302, 403]
    with away():
        assert [browser.get(each).status_code for each in (PAGE, DATA)] == [200, 200]
        assert [Client(raise_request_exception=False).get(each).status_code for each in (PAGE, DATA)] == [503, 503]


def test_a_mistake_of_ours_is_not_taken_for_an_outage(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    browser.get(PAGE)

    def fail(*args: Any) -> bool:
        raise TypeError("a mistake")

    monkeypatch.setattr(MAY_SEE, fail)
    assert browser.get(DATA).status_code == 500


def test_a_database_that_answers_late_is_asked_no_longer_than_half_a_second(
    browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full pool, or a query behind a lock: what the dashboard is there to show."""
    browser.get(PAGE)

    def ask_long(*args: Any) -> bool:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(10)")
        return True

    monkeypatch.setattr(access, "LONGEST_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(MAY_SEE, ask_long)
    assert browser.get(DATA).json()["by_pass"] is True


def test_a_pass_is_renewed_long_before_it_ends(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one of yesterday evening would end in this morning's outage."""
    browser.get(PAGE)
    given = browser.cookies[COOKIE].value
    for past, is_renewed in ((LONGEST_SECONDS / 2 - 60, False), (LONGEST_SECONDS / 2 + 60, True)):
        with monkeypatch.context() as patch:
            now = time.time()
            patch.setattr(time, "time", lambda now=now, past=past: now + past)
            browser.get(DATA)
        assert (browser.cookies[COOKIE].value != given) == is_renewed


def test_another_backend_is_not_offered(browser: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where every database has another one, which is the documented way back."""
    assert get_database_resources().alias == "default"
    assert "<option>default</option>" in browser.get(PAGE).content.decode()
    others = {"default": {**settings.DATABASES["default"], "ENGINE": "django.db.backends.postgresql"}}
    monkeypatch.setattr(pages, "connections", ConnectionHandler(others))
    page = browser.get(PAGE)
    assert page.status_code == 200
    assert "No database here uses dbresilience" in page.content.decode()
    assert "dashboard.js" not in page.content.decode()
    assert browser.get(DATA).status_code == 404
