"""Whatever a client sends wrongly is a clear 4xx that says which field and what to do; nothing is stored."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.test import Client
from rest_framework.test import APIClient

from chat.limits import BODY_BYTES, MESSAGE_CHARACTERS
from chat.models import Message, Thread

pytestmark = pytest.mark.django_db

PROBLEM = "application/problem+json"


def send(api: APIClient, body: str | bytes, **extra: Any) -> Any:
    return api.generic("POST", "/api/chat", body, **{"content_type": "application/json", **extra})


def assert_problem(answer: Any, status: int, *words: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.content
    assert answer["Content-Type"] == PROBLEM
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    for word in words:
        assert word in problem["detail"], problem
    assert not Message.objects.exists()
    return problem


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({}, ["message: This field is missing"]),
        ({"message": ""}, ["message: Write something"]),
        ({"message": " \n\t"}, ["message: Write something"]),
        ({"message": "x" * (MESSAGE_CHARACTERS + 1)}, ["message: Use at most 8,000 characters"]),
        ({"message": None}, ["message:"]),
        ({"message": 7}, ["message: Not a valid string"]),
        ({"message": ["x"]}, ["message: Not a valid string"]),
        ({"message": "a\x00b"}, ["message: Null characters"]),
        ({"message": "hello", "thread": "7"}, ["thread:", "UUID"]),
        ({"message": "hello", "thread": 7}, ["thread:", "UUID"]),
        ({"message": "hello", "colour": "red", "size": 1}, ["colour: There is no such field; use message, thread."]),
    ],
)
def test_what_a_message_may_be(api: APIClient, body: dict[str, Any], words: list[str]) -> None:
    problem = assert_problem(api.post("/api/chat", body), 400, *words)
    assert problem["errors"]


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ("{", "not JSON"),
        ("", "message"),
        ("[]", "JSON object"),
        ('"hello"', "JSON object"),
        ('{"message": NaN}', "not JSON"),
        ('{"message": "\\ud800"}', "message: Surrogate"),
        (b'{"message": "\xff"}', "not UTF-8"),
        ("[" * 60_000, "not JSON"),
        ('{"message": ' + "9" * 5000 + "}", "not JSON"),
    ],
)
def test_malformed_bodies(api: APIClient, body: str | bytes, word: str) -> None:
    assert_problem(send(api, body), 400, word)


def test_the_longest_message_is_accepted_with_any_characters(api: APIClient) -> None:
    """8,000 characters of four bytes each: the limit counts what people see."""
    answer = api.post("/api/threads", {"title": "😀" * 200})
    assert answer.status_code == 201
    assert len(("😀" * MESSAGE_CHARACTERS).encode()) < BODY_BYTES


def test_a_large_body_is_a_413_whatever_it_holds(api: APIClient) -> None:
    assert_problem(send(api, b'{"message": "' + b"x" * BODY_BYTES + b'"}'), 413, "64 KiB")


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_other_content_types_are_a_415(api: APIClient, content_type: str) -> None:
    assert_problem(send(api, b"message=hello", content_type=content_type), 415, "application/json")


def test_an_unacceptable_accept_is_a_406_that_names_what_there_is(api: APIClient) -> None:
    answer = api.post("/api/chat", {"message": "hello"}, HTTP_ACCEPT="image/png")
    assert_problem(answer, 406, "application/json", "text/event-stream")


def test_another_method_is_a_405_with_allow(api: APIClient) -> None:
    answer = api.get("/api/chat")
    assert_problem(answer, 405)
    assert "POST" in answer["Allow"]


@pytest.mark.parametrize("key", ["7", "not-a-uuid", "", "ä"])
def test_an_idempotency_key_is_a_uuid(api: APIClient, key: str) -> None:
    answer = api.post("/api/chat", {"message": "hello"}, HTTP_IDEMPOTENCY_KEY=key)
    assert_problem(answer, 400, "Idempotency-Key")


def test_strangers_are_asked_for_a_token() -> None:
    answer = APIClient().get("/api/threads")
    assert_problem(answer, 401)
    assert answer["WWW-Authenticate"] == "Token"


def test_a_session_needs_its_csrf_token(alice: Any) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(alice)
    answer = browser.post("/api/chat", {"message": "hello"}, content_type="application/json")
    assert_problem(answer, 403, "CSRF")


def test_errors_are_problems_for_event_streams_too(api: APIClient) -> None:
    assert_problem(api.post("/api/chat", {}, HTTP_ACCEPT="text/event-stream"), 400, "message")


@pytest.mark.parametrize("path", ["/api/nothing", "/api/threads/7", "/api/", "/api/threads/x/messages"])
def test_other_addresses_of_the_api_are_problems_too(api: APIClient, path: str) -> None:
    assert_problem(api.get(path), 404)


@pytest.mark.parametrize("title", ["", " ", "x" * 201, None, 7, "a\x00"])
def test_what_a_title_may_be(api: APIClient, alice: Any, title: Any) -> None:
    thread = Thread.objects.create(owner=alice, title="Before")
    answer = api.patch(f"/api/threads/{thread.pk}", {"title": title})
    assert_problem(answer, 400, "title:")
    assert Thread.objects.get().title == "Before"


def test_a_token_for_a_name_and_a_password(alice: Any) -> None:
    answer = APIClient().post("/api/auth/token", {"username": "alice", "password": "alice"})
    assert answer.status_code == 200
    api = APIClient(HTTP_AUTHORIZATION=f"Token {answer.json()['token']}")
    assert api.get("/api/threads").status_code == 200
    assert APIClient().post("/api/auth/token", {"username": "alice", "password": "alice"}).json() == answer.json()


@pytest.mark.parametrize(
    "body",
    [
        {"username": "alice", "password": "wrong"},
        {"username": "nobody", "password": "alice"},
        {"username": "alice"},
        {"username": "a\x00", "password": "alice"},
        {"username": "alice", "password": "x" * 1001},
    ],
)
def test_no_token_for_anything_else(alice: Any, body: dict[str, str]) -> None:
    answer = APIClient().post("/api/auth/token", body)
    assert_problem(answer, 400)


def test_a_token_of_nobody_is_a_401(db: None) -> None:
    assert_problem(APIClient(HTTP_AUTHORIZATION=f"Token {uuid.uuid4().hex}").get("/api/threads"), 401)


def test_too_many_questions_are_a_429_with_retry_after(api: APIClient, settings: Any, agent: Any) -> None:
    """Per user; requests that come in wrong count, too."""
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {"chat": "2/min"}}
    assert [api.post("/api/chat", {}).status_code for _ in range(2)] == [400, 400]
    answer = api.post("/api/chat", {"message": "hello"})
    problem = assert_problem(answer, 429, "Try again in")
    assert 0 < int(answer["Retry-After"]) <= 60
    assert problem["retry_after"] == int(answer["Retry-After"])


def test_guessing_passwords_is_limited_by_address_whatever_the_client_says_it_is(db: None, settings: Any) -> None:
    settings.REST_FRAMEWORK = {**settings.REST_FRAMEWORK, "DEFAULT_THROTTLE_RATES": {"token": "3/min"}}
    answers = [
        APIClient().post("/api/auth/token", {}, HTTP_X_FORWARDED_FOR=f"10.0.0.{number}").status_code
        for number in range(4)
    ]
    assert answers == [400, 400, 400, 429]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE", "TRACE", "BREW"])
def test_no_method_of_any_address_is_a_5xx(api: APIClient, alice: Any, method: str) -> None:
    thread = Thread.objects.create(owner=alice, title="Before")
    for path in [
        "/api/auth/token",
        "/api/chat",
        "/api/threads",
        f"/api/threads/{thread.pk}",
        f"/api/threads/{thread.pk}/messages",
        f"/api/messages/{thread.pk}/retry",
        "/api/threads?page_size=-1&cursor=%00",
        "/api/threads?cursor=%ff%fe&format=xml",
        "/api/nothing%00",
    ]:
        answer = api.generic(method, path)
        assert answer.status_code < 500, (method, path)
        if answer.status_code >= 400 and method != "HEAD":
            assert answer["Content-Type"] == PROBLEM, (method, path)
