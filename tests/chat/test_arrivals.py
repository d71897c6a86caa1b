"""Who asks is looked up together with the thread they name: nobody comes in by that, or into what is not theirs."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from rest_framework.authtoken.models import Token
from rest_framework.test import APIClient

from chat.api.turns import NO_THREAD
from chat.limits import BODY_BYTES
from chat.models import Message, Thread

pytestmark = pytest.mark.django_db(transaction=True)


def with_token(user: User) -> APIClient:
    api = APIClient()
    api.credentials(HTTP_AUTHORIZATION=f"Token {Token.objects.create(user=user).key}")
    return api


def with_session(user: User) -> APIClient:
    api = APIClient()
    api.force_login(user)
    return api


def by_force(user: User) -> APIClient:
    """As somebody's own way to authenticate, which knows nothing of threads."""
    api = APIClient()
    api.force_authenticate(user)
    return api


WAYS = [with_token, with_session, by_force]


@pytest.fixture
def thread(alice: User) -> Thread:
    thread = Thread.objects.create(owner=alice, title="Mine")
    question = Message.objects.create(thread=thread, role="user", content="Before", author=alice)
    Message.objects.create(thread=thread, role="assistant", content="Then", in_reply_to=question)
    return thread


def ask(api: APIClient, thread: Thread | str | None, **more: Any) -> Any:
    named = {"thread": str(thread.pk if isinstance(thread, Thread) else thread)} if thread else {}
    return api.post("/api/chat", {"message": "Hello", **named}, **more)


@pytest.mark.parametrize("way", WAYS)
def test_everybody_goes_on_in_their_own_thread(
    alice: User, thread: Thread, agent: Any, way: Callable[[User], APIClient]
) -> None:
    answer = ask(way(alice), thread)
    assert (answer.status_code, answer.json()["thread"]["id"]) == (200, str(thread.pk))
    assert [said.content for said in agent.heard[0]] == ["Before", "Then", "Hello"]
    assert list(Message.objects.filter(content="Hello").values_list("author", "thread")) == [(alice.pk, thread.pk)]


@pytest.mark.parametrize("way", WAYS)
def test_nobody_goes_on_in_somebody_elses(
    bob: User, thread: Thread, agent: Any, way: Callable[[User], APIClient]
) -> None:
    api = way(bob)
    for named in (thread, str(uuid.uuid4())):
        answer = ask(api, named)
        assert (answer.status_code, answer.json()["detail"]) == (404, NO_THREAD)
    assert (agent.calls, Message.objects.count()) == (0, 2)


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize(
    "header", ["", "Token", "Token two words", "Token nobodys", "Token \xff", "Bearer x", f"Token {'x' * 5000}"]
)
def test_a_stranger_is_a_401(thread: Thread, agent: Any, header: str, named: bool) -> None:
    answer = ask(APIClient(), thread if named else None, **({"HTTP_AUTHORIZATION": header} if header else {}))
    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Token"
    assert answer["Content-Type"] == "application/problem+json"
    assert agent.calls == 0


@pytest.mark.parametrize("way", [with_token, with_session])
@pytest.mark.parametrize("what", ["inactive", "deleted"])
def test_who_may_no_longer_come_in_does_not(
    alice: User, thread: Thread, way: Callable[[User], APIClient], what: str
) -> None:
    api = way(alice)
    if what == "inactive":
        User.objects.filter(pk=alice.pk).update(is_active=False)
    else:
        alice.delete()
    assert ask(api, thread).status_code == 401


def test_a_session_ends_with_the_password(alice: User, thread: Thread) -> None:
    api = with_session(alice)
    alice.set_password("another")
    alice.save()
    assert ask(api, thread).status_code == 401
    assert not Session.objects.exists()


def test_a_session_outlives_the_secret_that_signed_it(alice: User, thread: Thread, agent: Any, settings: Any) -> None:
    """Django signs it anew, and the turn goes on."""
    api = with_session(alice)
    before = Session.objects.get().session_key
    settings.SECRET_KEY_FALLBACKS, settings.SECRET_KEY = [settings.SECRET_KEY], "another"
    assert ask(api, thread).status_code == 200
    assert Session.objects.get().session_key != before
    assert ask(api, thread).status_code == 200


@pytest.mark.parametrize("backends", [["django.contrib.auth.backends.AllowAllUsersModelBackend"], []])
def test_a_session_of_a_way_to_log_in_that_is_gone_is_none(
    alice: User, thread: Thread, settings: Any, backends: list[str]
) -> None:
    api = with_session(alice)
    settings.AUTHENTICATION_BACKENDS = backends
    assert ask(api, thread).status_code == 401


def test_a_session_needs_the_forms_token(alice: User, thread: Thread) -> None:
    api = APIClient(enforce_csrf_checks=True)
    api.force_login(alice)
    assert ask(api, thread).status_code == 403
    assert Message.objects.count() == 2


MISTAKES: dict[str, tuple[int, dict[str, Any]]] = {
    "no JSON": (400, {"data": "{", "content_type": "application/json"}),
    "no message": (400, {"data": {}}),
    "no thread's id": (400, {"data": {"message": "Hello", "thread": "mine"}}),
    "a field too many": (400, {"data": {"message": "Hello", "room": 1}}),
    "too large": (413, {"data": {"message": "x" * BODY_BYTES}}),
    "a form": (415, {"data": "message=Hello", "content_type": "application/x-www-form-urlencoded"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_wrong_with_a_request_is_told_to_those_who_may_come_in(alice: User, mistake: str) -> None:
    """Although it is read before it is known who they are."""
    status, request = MISTAKES[mistake]
    for way in WAYS:
        answer = way(alice).post("/api/chat", **request)
        assert answer.status_code == status
        assert answer["Content-Type"] == "application/problem+json"
    assert APIClient().post("/api/chat", **request).status_code == 401
    assert not Message.objects.exists()
