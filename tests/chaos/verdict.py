"""What must hold when all is well again: everything once, only honest answers, nothing stuck, nothing left open."""

from __future__ import annotations

import json
import random
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg
from psycopg.rows import dict_row

from tests.chaos.observers import Sessions
from tests.chaos.people import People
from tests.chaos.questions import MAY_COME_AGAIN, Question
from tests.support.postgres import ThrowawayPostgres
from tests.support.site import Site

REPEATED_ACKNOWLEDGED = 50
REST_SECONDS = 10.0
"""In which a site that nobody asks comes to rest."""
LONGEST_RETURN_SECONDS = 5.0
IN_A_ROW = 30
"""So many answers are from all processes."""
LONGEST_ABOVE_BOUND_SECONDS = 1.0
STORED = """
    SELECT question.idempotency_key AS key, question.id::text, question.content, question.thread_id::text AS thread,
           reply.id::text AS reply_id, reply.content AS reply, reply.status
    FROM chat_message question LEFT JOIN chat_message reply ON reply.in_reply_to_id = question.id
    WHERE question.role = 'user'
"""


@dataclass(frozen=True)
class Stored:
    """One question in the database with its reply."""

    id: str
    content: str
    thread: str
    reply_id: str | None
    reply: str | None
    status: str | None


def judge(
    server: ThrowawayPostgres,
    database: str,
    site: Site,
    people: People,
    *,
    pool_size: int,
    sessions: Sessions,
    returns: list[tuple[float, str]],
) -> list[str]:
    """Return what is broken, in words."""
    url = server.url(database)
    broken = [
        *_only_honest_answers(people),
        *_came_back(returns),
        *_comes_back(site, people),
        *_refused_are_safe_to_repeat(url, site, people),
    ]
    broken += _everything_once(url, people)
    broken += _at_rest(server, database, site, pool_size=pool_size, bound=sessions.bound)
    if sessions.longest_above_bound_seconds > LONGEST_ABOVE_BOUND_SECONDS:
        broken.append(
            f"More than {sessions.bound} sessions for {sessions.longest_above_bound_seconds:.1f} s, "
            f"at most {sessions.most}"
        )
    return broken


def _only_honest_answers(people: People) -> Iterator[str]:
    seen: Counter[str] = Counter()
    for question in people.questions:
        for answer in question.answers:
            if not 200 <= answer.status < 300 and answer.status not in MAY_COME_AGAIN:
                what = f"Status {answer.status}: {json.dumps(answer.body)[:300]}"
                seen[what] += 1
    yield from (f"{what} (× {many})" for what, many in seen.most_common())


def _came_back(returns: list[tuple[float, str]]) -> Iterator[str]:
    """Far more than it takes, so that a slow day breaks nothing; what it takes is in the report."""
    for seconds, disturbance in returns:
        if seconds > LONGEST_RETURN_SECONDS:
            yield f"{seconds:.1f} s until the first 200 after: {disturbance}"


def _comes_back(site: Site, people: People) -> Iterator[str]:
    """The last disturbance is only just over: every process may refuse for a moment, and no longer."""
    began = time.monotonic()
    in_a_row = 0
    while in_a_row < IN_A_ROW:
        request = urllib.request.Request(
            site.url + "/api/threads", headers={"Authorization": f"Token {people.tokens[0]}"}
        )
        try:
            urllib.request.urlopen(request, timeout=30).close()
            in_a_row += 1
        except urllib.error.HTTPError as error:
            error.close()
            in_a_row = 0
        if (took := time.monotonic() - began) > LONGEST_RETURN_SECONDS:
            yield f"All has been well for {took:.1f} s, and the site still refuses"
            return
        time.sleep(0.01)


def _refused_are_safe_to_repeat(url: str, site: Site, people: People) -> Iterator[str]:
    """Asks again what was refused, and some of what was not: each gets its one answer, now and another time."""
    before = _stored(url)
    asked = [question for question in people.questions if question.answers]
    refused = [question for question in asked if question.acknowledgement is None]
    acknowledged = [question for question in asked if question.acknowledgement is not None]
    some = random.Random(len(acknowledged)).sample(acknowledged, min(REPEATED_ACKNOWLEDGED, len(acknowledged)))
    with ThreadPoolExecutor(len(people.tokens)) as executor:
        verdicts = executor.map(lambda question: list(_repeat(site, people, question, before)), [*refused, *some])
        for verdict in verdicts:
            yield from verdict


def _repeat(site: Site, people: People, question: Question, before: dict[str, list[Stored]]) -> Iterator[str]:
    token = people.asked_by[question.number]
    was_there = before[str(question.key)]
    known = question.acknowledgement
    first, second = question.ask(site, token), question.ask(site, token)
    for answer in (first, second):
        if not answer.is_acknowledgement:
            yield f"Turn {question.number} repeated at rest: {answer.status} {json.dumps(answer.body)[:300]}"
            return
    known = known or first
    if not _same(known.body, first.body) or not _same(first.body, second.body):
        yield f"Turn {question.number} got two answers: {known.body} {first.body} {second.body}"
    if was_there and first.body["message"]["id"] != was_there[0].id:
        yield f"Turn {question.number} was stored as {was_there[0].id} and is answered as {first.body['message']['id']}"


def _same(one: dict[str, object], other: dict[str, object]) -> bool:
    # A thread gets its title from a worker, whenever that comes to it.
    return all(one[part] == other[part] for part in ("message", "reply"))


def _everything_once(url: str, people: People) -> Iterator[str]:
    stored = _stored(url)
    by_text = Counter(row.content for rows in stored.values() for row in rows)
    lost = doubled = 0
    for question in people.questions:
        rows = stored[str(question.key)]
        answer = question.acknowledgement
        lost += answer is not None and not rows
        doubled += len(rows) > 1 or by_text[question.text] > 1
        if answer is None or len(rows) != 1:
            continue
        told, row = answer.body, rows[0]
        wanted = (told["message"]["id"], question.text, told["thread"]["id"], told["reply"]["id"],
                  told["reply"]["content"], told["reply"]["status"])  # fmt: skip
        found = (row.id, row.content, row.thread, row.reply_id, row.reply, row.status)
        if found != wanted:
            yield f"Turn {question.number} was acknowledged as {wanted} and is stored as {found}"
        if row.status != "complete":
            yield f"Turn {question.number} has a reply that is {row.status}: {told['reply']}"
    if lost:
        yield f"{lost} acknowledged turns are lost"
    if doubled:
        yield f"{doubled} turns are stored more than once"
    unasked = by_text.keys() - {question.text for question in people.questions}
    if unasked:
        yield f"{len(unasked)} questions are stored that nobody asked"
    with psycopg.connect(url) as connection:
        empty = _count(connection, "SELECT count(*) FROM chat_thread t WHERE NOT EXISTS "
                                   "(SELECT FROM chat_message m WHERE m.thread_id = t.id)")  # fmt: skip
        streaming = _count(connection, "SELECT count(*) FROM chat_message WHERE status = 'streaming'")
    if empty:
        yield f"{empty} threads are empty: half a turn was stored"
    if streaming:
        yield f"{streaming} replies are still being written: their turns are stuck"


def _at_rest(server: ThrowawayPostgres, database: str, site: Site, *, pool_size: int, bound: int) -> Iterator[str]:
    began = time.monotonic()
    urllib.request.urlopen(site.url + "/livez", timeout=30).close()
    if (took := time.monotonic() - began) > 1:
        yield f"/livez takes {took:.1f} s although all is well"
    # Each answer is one process's, and which one is up to the kernel.
    last: list[dict[str, int]] = []
    while time.monotonic() < began + REST_SECONDS:
        last = [_pool(site) for _ in range(20)]
        if all(pool.get("in_use") == 0 and pool.get("size", 0) <= pool_size for pool in last):
            break
        time.sleep(0.2)
    else:
        yield f"The pool is not whole at rest: {last}"
    # The probe's own session may be closing still.
    time.sleep(0.2)
    if (sessions := server.backends(database)) > bound:
        yield f"{sessions} sessions at rest, allowed {bound}"


def _pool(site: Site) -> dict[str, int]:
    try:
        with urllib.request.urlopen(site.url + "/api/health/db", timeout=10) as response:
            return dict(json.load(response).get("pool", {"in_use": 0}))
    except urllib.error.HTTPError as error:
        return {"status": error.code}


def _stored(url: str) -> dict[str, list[Stored]]:
    found: dict[str, list[Stored]] = defaultdict(list)
    with psycopg.connect(url, row_factory=dict_row) as connection:
        for row in connection.execute(STORED):
            found[str(row.pop("key"))].append(Stored(**row))
    return found


def _count(connection: psycopg.Connection, query: str) -> int:
    row = connection.execute(query).fetchone()  # type: ignore[arg-type]
    return int(row[0]) if row else 0
