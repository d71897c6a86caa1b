"""The way to the database freezes or breaks while somebody talks: the page counts down, sends again, shows all once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Request, expect

from tests.browser.conftest import Chat
from tests.conftest import TEMPLATE
from tests.support.postgres import ThrowawayPostgres
from tests.support.protocol import Message, is_commit
from tests.support.proxy import ANSWERED, SEEN, SENT, Proxy
from tests.support.site import Site

pytestmark = [pytest.mark.browser, pytest.mark.slow, pytest.mark.timed]

DATABASE = "site_of_cuts"


@pytest.fixture(scope="module")
def proxy(_postgres_of_session: ThrowawayPostgres) -> Iterator[Proxy]:
    with Proxy(_postgres_of_session.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def site(_postgres_of_session: ThrowawayPostgres, proxy: Proxy) -> Iterator[Site]:
    """One site whose way to its database can be broken, with two seconds for each request."""
    _postgres_of_session.copy_database(TEMPLATE, DATABASE)
    url = f"{proxy.url(_postgres_of_session.url(DATABASE))}?deadline_seconds=2"
    with Site(url, CHAT_AGENT_DELAY_SECONDS="1", CHAT_RATE="10000/min") as site:
        yield site


@pytest.fixture(autouse=True)
def _all_is_well(proxy: Proxy, postgres: ThrowawayPostgres) -> Iterator[None]:
    yield
    postgres.thaw()
    proxy.cuts.clear()
    proxy.restore()


def keys_of(chat: Chat) -> list[str]:
    """The Idempotency-Key of every question that the page sends from now on."""
    keys: list[str] = []

    def note(request: Request) -> None:
        if request.url.endswith("/api/chat"):
            keys.append(request.headers["idempotency-key"])

    chat.page.on("request", note)
    return keys


def is_there_once(chat: Chat, *questions: str) -> None:
    """On the page and in the database, with one complete answer each."""
    expect(chat.questions).to_have_text(list(questions))
    expect(chat.replies).to_have_count(len(questions))
    stored = chat.stored()
    assert [message["content"] for message in stored if message["role"] == "user"] == list(questions)
    assert [message["status"] for message in stored if message["role"] == "assistant"] == ["complete"] * len(questions)


def test_a_message_sent_to_a_frozen_server_arrives_once(chat: Chat, postgres: ThrowawayPostgres) -> None:
    """The deadline ends the wait, a countdown begins, the same key is sent again."""
    chat.ask("What is 2*(3+4)?")
    chat.answered()
    keys = keys_of(chat)
    postgres.freeze()
    chat.ask("What is 6*7?")
    expect(chat.banner).to_contain_text("The database is away for a moment")
    expect(chat.banner.get_by_role("button")).to_contain_text("Try now (")
    expect(chat.questions.last).to_contain_text("kept in this browser")
    postgres.thaw()
    expect(chat.answered(1)).to_contain_text("42")
    expect(chat.banner).to_contain_text("All is well again")
    assert len(keys) >= 2
    assert len(set(keys)) == 1
    is_there_once(chat, "What is 2*(3+4)?", "What is 6*7?")


def test_a_server_that_freezes_while_the_assistant_answers_loses_no_word(
    chat: Chat, postgres: ThrowawayPostgres
) -> None:
    chat.ask("What can you do?")
    chat.begun()
    postgres.freeze()
    expect(chat.replies.last.locator(".prose")).to_contain_text("OPENAI_BASE_URL")
    # Longer than a statement may take.
    chat.page.wait_for_timeout(3000)
    postgres.thaw()
    expect(chat.answered()).to_contain_text("OPENAI_BASE_URL")
    is_there_once(chat, "What can you do?")


def commit_of_a_question() -> Callable[[Message], bool]:
    writing: set[int] = set()

    def matches(message: Message) -> bool:
        if 'INSERT INTO "chat_message"' in message.sql:
            writing.add(message.connection)
        return message.connection in writing and is_commit(message)

    return matches


@pytest.mark.parametrize("after", [SEEN, SENT, ANSWERED])
def test_a_connection_cut_at_the_commit_of_a_question_is_hardly_noticed(chat: Chat, proxy: Proxy, after: str) -> None:
    """Whether it is stored can be looked up at once; whatever the answer, it is answered once."""
    cut = proxy.cut_when(commit_of_a_question(), after=after)
    keys = keys_of(chat)
    chat.ask("What is 6*7?")
    expect(chat.answered()).to_contain_text("42")
    assert cut.happened.is_set()
    assert len(set(keys)) == 1
    is_there_once(chat, "What is 6*7?")


def test_a_question_that_may_be_stored_is_sent_again_until_that_is_known(chat: Chat, proxy: Proxy) -> None:
    """Cut at its COMMIT, and nobody can be asked. It was stored, but never begun; the second try takes over at once."""
    keys = keys_of(chat)
    cut = proxy.cut_when(commit_of_a_question(), after=SENT, then=proxy.refuse)
    chat.ask("What is 6*7?")
    expect(chat.banner).to_contain_text("The database is away for a moment")
    assert cut.happened.is_set()
    proxy.restore()
    # The page's countdown and the assistant's second; not the half minute after which a reply looks abandoned.
    expect(chat.replies.last).to_have_attribute("data-status", "complete")
    expect(chat.replies.last).to_contain_text("42")
    assert len(keys) >= 2
    assert len(set(keys)) == 1
    is_there_once(chat, "What is 6*7?")


def test_all_connections_cut_while_the_assistant_answers_are_not_noticed(chat: Chat, proxy: Proxy) -> None:
    """The network is back before the next word is saved."""
    chat.ask("What can you do?")
    chat.begun()
    proxy.reset()
    proxy.restore()
    expect(chat.answered()).to_contain_text("OPENAI_BASE_URL")
    is_there_once(chat, "What can you do?")


def test_a_black_hole_while_the_page_is_read_ends_by_itself(chat: Chat, proxy: Proxy) -> None:
    """An old conversation is opened while packets are swallowed; it appears when they are not."""
    chat.ask("What is 6*7?")
    chat.answered()
    chat.page.get_by_role("link", name="New conversation").first.click()
    proxy.swallow()
    chat.threads.get_by_role("link", name="6*7").first.click()
    expect(chat.banner).to_contain_text("The page goes on by itself")
    proxy.restore()
    expect(chat.questions).to_have_text(["What is 6*7?"], timeout=20_000)
