"""People chat while PostgreSQL is killed, restarted, frozen and cut off; nothing is lost, nothing is there twice.

`make chaos SEED=7 TURNS=10000` is the same for as long as you like.
"""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.chaos import trial, verdict
from tests.chaos.people import People
from tests.chaos.questions import Answer
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

pytestmark = pytest.mark.slow


def test_everything_survives(postgres: ThrowawayPostgres, database_url: str) -> None:
    """Each acknowledged turn once, each refused one repeatable, only 200, 429 and 503, and nothing left open."""
    database = str(conninfo_to_dict(database_url)["dbname"])
    report = trial.run(postgres, database, seed=4, turns=200, limit_seconds=30, calm_seconds=(0.2, 1.0), say=print)
    assert report.disturbances.total() >= 3
    assert not report.broken, str(report)


REMEMBER = "CREATE TABLE messages AS TABLE chat_message; CREATE TABLE threads AS TABLE chat_thread"
RESTORE = "TRUNCATE chat_thread CASCADE; INSERT INTO chat_thread TABLE threads; INSERT INTO chat_message TABLE messages"
DAMAGES = {
    "TRUNCATE chat_message CASCADE": ["3 acknowledged turns are lost", "3 threads are empty"],
    "UPDATE chat_message SET content = 'another' WHERE role = 'assistant'": ["is stored as"],
    "UPDATE chat_message SET content = 'another' WHERE role = 'user'": ["1 questions are stored that nobody asked"],
    "UPDATE chat_message SET status = 'failed' WHERE role = 'assistant'": ["has a reply that is failed"],
    "UPDATE chat_message SET status = 'streaming' WHERE role = 'assistant'": ["3 replies are still being written"],
    "INSERT INTO chat_message (id, thread_id, role, content, status, author_id, attempt, created_at, updated_at) "
    "SELECT gen_random_uuid(), thread_id, role, content, status, author_id, attempt, created_at, updated_at "
    "FROM messages WHERE role = 'user' LIMIT 1": ["1 turns are stored more than once"],
    "INSERT INTO chat_thread (id, owner_id, title, created_at, updated_at) "
    "SELECT gen_random_uuid(), owner_id, title, created_at, updated_at FROM threads LIMIT 1": ["1 threads are empty"],
}


def test_what_is_broken_is_seen(start_site: Callable[..., Site], database_url: str) -> None:
    """A verdict that finds nothing is worth what it would have found."""
    site = start_site(CHAT_AGENT_DELAY_SECONDS="0", CHAT_RATE=trial.RATE)
    people = People(site, database_url, seed=1, turns=3, many=1)
    for question in people.questions:
        people.asked_by[question.number] = people.tokens[0]
        question.ask(site, people.tokens[0])
    assert not [*verdict._everything_once(database_url, people)]
    assert not [*verdict._refused_are_safe_to_repeat(database_url, site, people)]
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(REMEMBER)
        for damage, said in DAMAGES.items():
            connection.execute(damage)  # type: ignore[call-overload]
            found = "; ".join(verdict._everything_once(database_url, people))
            assert [words for words in said if words not in found] == [], f"{damage}: {found}"
            connection.execute(RESTORE)
        connection.execute("UPDATE chat_message SET content = 'another' WHERE role = 'assistant'")
    found = "; ".join(verdict._refused_are_safe_to_repeat(database_url, site, people))
    assert found.count("got two answers") == 3


def test_dishonest_and_late_answers_are_seen(start_site: Callable[..., Site], database_url: str) -> None:
    """Each kind is told once, with how often; a site that came back too late with what was done to it."""
    people = People(start_site(), database_url, seed=1, turns=2, many=1)
    for question in people.questions:
        question.answers = [Answer(status, {}, 0.1) for status in (429, 503, 500, 200)]
    assert list(verdict._only_honest_answers(people)) == ["Status 500: {} (× 2)"]
    assert list(verdict._came_back([(4.0, "kill"), (6.0, "freeze")])) == ["6.0 s until the first 200 after: freeze"]
