"""A question whose COMMIT was never answered: stored once, whatever became of it, and answered."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from chat import limits, services, unbegun
from chat.models import Message, Thread
from tests.chat.commits import interrupt_commit
from tests.chat.conftest import forget_unbegun
from tests.support.postgres import wait_until

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


def ask(api: APIClient, key: str, **body: Any) -> Any:
    return api.post("/api/chat", {"message": "Hello", **body}, HTTP_IDEMPOTENCY_KEY=key)


@pytest.mark.skipif(
    connection.settings_dict["ENGINE"] != "dbresilience", reason="Django's own backend does not look it up"
)
@pytest.mark.parametrize("stored", [True, False])
def test_nobody_notices_an_interrupted_commit(
    api: APIClient, agent: Any, key: str, monkeypatch: pytest.MonkeyPatch, stored: bool
) -> None:
    """It is looked up; what was stored is answered, what was not is stored again."""
    interrupt_commit(monkeypatch, stored=stored)
    assert ask(api, key).status_code == 200
    assert [message.role for message in Message.objects.order_by("pk")] == ["user", "assistant"]
    assert (Thread.objects.count(), agent.calls) == (1, 1)


@pytest.mark.skipif(
    connection.settings_dict["ENGINE"] != "dbresilience", reason="Django's own backend runs nothing again"
)
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("where", ["a new thread", "an old one"])
@pytest.mark.parametrize("has_key", [True, False])
def test_where_nobody_can_look_the_question_is_stored_again_and_finds_itself(
    api: APIClient, agent: Any, key: str, monkeypatch: pytest.MonkeyPatch, stored: bool, where: str, has_key: bool
) -> None:
    body = {} if where == "a new thread" else {"thread": ask(api, str(uuid.uuid4())).json()["thread"]["id"]}
    Message.objects.all().delete()
    headers = {"HTTP_IDEMPOTENCY_KEY": key} if has_key else {}
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "resilience", {"commit_lookup": False})
    agent.will("Here I am.")
    interrupt_commit(monkeypatch, stored=stored)
    told = api.post("/api/chat", {"message": "Hello", **body}, **headers)
    assert (told.status_code, told.json()["reply"]["content"]) == (200, "Here I am.")
    question, reply = Message.objects.order_by("pk")
    assert (str(question.pk), str(reply.pk)) == (told.json()["message"]["id"], told.json()["reply"]["id"])
    assert (reply.status, reply.content, Thread.objects.count()) == ("complete", "Here I am.", 1)
    if has_key:
        assert ask(api, key, **body).json() == told.json()


@pytest.mark.usefixtures("nobody_looks")
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("where", ["the same process", "another process"])
def test_a_request_whose_commit_was_interrupted_is_stored_once(
    api: APIClient, agent: Any, key: str, monkeypatch: pytest.MonkeyPatch, stored: bool, where: str
) -> None:
    """Where nobody can look: whether it happened or not, the same request again settles it, at once."""
    monkeypatch.setattr(limits, "UNBEGUN_TELL_SECONDS", 0.05)
    if where == "the same process":
        monkeypatch.setattr(unbegun, "_tell_all", lambda _: None)
    interrupt_commit(monkeypatch, stored=stored)
    answer = ask(api, key)
    assert answer.status_code == 503
    if connection.settings_dict["ENGINE"] == "dbresilience":
        assert answer.json()["outcome_unknown"] is True
    wait_until(lambda: api.get("/api/threads").status_code == 200, what="the database's return")
    assert Message.objects.count() == (2 if stored else 0)
    if where == "another process":
        # What that knows is what the database knows.
        if stored:
            wait_until(lambda: Message.objects.filter(error=services.NEVER_BEGUN).exists(), what="word of it")
        forget_unbegun()

    # Nobody has begun the reply, and nobody waits until that shows.
    began = time.monotonic()
    assert ask(api, key).status_code == 200
    assert time.monotonic() - began < limits.TAKE_OVER_SECONDS
    assert [(message.role, message.status, message.error) for message in Message.objects.order_by("pk")] == [
        ("user", "complete", None),
        ("assistant", "complete", None),
    ]
    assert Thread.objects.count() == 1
    assert agent.calls == 1


@pytest.mark.skipif(
    connection.settings_dict["ENGINE"] != "dbresilience", reason="Django's own backend runs nothing again"
)
def test_a_reply_is_disowned_whichever_attempt_has_stored_it(
    api: APIClient, agent: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever asks again would wait until it looks abandoned."""
    monkeypatch.setattr(limits, "UNBEGUN_TELL_SECONDS", 0.05)
    monkeypatch.setitem(connection.settings_dict["OPTIONS"], "resilience", {"commit_lookup": False})
    interrupt_commit(monkeypatch, stored=True, times=3)
    answer = ask(api, key)
    assert (answer.status_code, answer.json()["outcome_unknown"]) == (503, True)
    wait_until(lambda: Message.objects.filter(error=services.NEVER_BEGUN).exists(), what="word of it")


def test_a_reply_that_somebody_has_touched_is_not_disowned(api: APIClient, alice: Any, agent: Any, key: str) -> None:
    """Two asked again for it, and the one who does not know whether it got it did not."""
    turn = services.start_turn(author=alice, message="Hello", idempotency_key=uuid.UUID(key))
    in_doubt = Message.objects.get(pk=turn.reply.pk)
    Message.objects.filter(pk=turn.reply.pk).update(updated_at=timezone.now())
    assert services.disown_replies(replies=[in_doubt]) == 0
    assert services.disown_replies(replies=[Message.objects.get(pk=turn.reply.pk)]) == 1


@pytest.mark.parametrize("limit", ["UNBEGUN_REPLIES", "ABANDONED_SECONDS"])
def test_what_is_remembered_of_replies_that_nobody_writes_is_bounded(
    alice: Any, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(limits, limit, 0)
    monkeypatch.setattr(limits, "UNBEGUN_TELL_SECONDS", 0.05)
    unbegun.disown(services.start_turn(author=alice, message="Hello").reply)
    wait_until(lambda: not unbegun.count(), what="oblivion")
