"""What a chat turn costs when the database is far away: who asks, the thread, its history; the question; the reply.

Every peer runs it as a team writes it on Django alone, seven round trips; ours with `gather` and `pipeline`, three. The
assistant answers at once: only the time for the database is measured. Each set-up makes several turns in a row, as a
process of a site does, before it is the next one's turn.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from time import perf_counter
from typing import Any
from uuid import UUID

import psycopg

from tests.support.postgres import ThrowawayPostgres

from . import queries
from .distance import far
from .setups import BASELINE, DATABASE, OURS, Settings, pgbouncer, setups

SECONDS = 0.005
NEAR_ROUNDS = 10
IN_A_ROW = 5
MOST_OWN_SECONDS = 0.001
"""More of what the proxy takes by itself is not made up for: then the machine is too busy to tell."""
HISTORY = 20
POOL_SIZE = 5
SAME_CODE = "dbresilience, the code of the others"
APPS = ("django.contrib.postgres", "rest_framework", "rest_framework.authtoken", "chat")


@contextmanager
def near_and_far() -> Iterator[tuple[dict[str, Settings], dict[str, Settings], float]]:
    """Run a server on TCP for the block.

    Gives the set-ups that are beside it, the same ones at a distance, and the seconds that their proxy is set to.
    """
    with ThrowawayPostgres() as server, ExitStack() as stack:
        server.execute(f"CREATE DATABASE {DATABASE}")
        bouncer = stack.enter_context(pgbouncer(server.server, POOL_SIZE))
        near = setups(server.server, POOL_SIZE, bouncer)
        addresses = {str(server.port): str(server.port)}
        if bouncer is not None:
            addresses[bouncer["PORT"]] = f"{bouncer['HOST']}/.s.PGSQL.{bouncer['PORT']}"
        set_to_seconds = SECONDS - _own_seconds(server)
        ports = stack.enter_context(far(list(addresses.values()), set_to_seconds))
        moved = dict(zip(addresses, ports, strict=True))
        distant = {name: at | {"HOST": "127.0.0.1", "PORT": str(moved[at["PORT"]])} for name, at in near.items()}
        yield near, distant, set_to_seconds


def _own_seconds(server: ThrowawayPostgres, times: int = 200) -> float:
    """What a round trip takes beyond the distance, since a process plays the network: it wakes up, takes and sends."""
    with (
        far([str(server.port)], SECONDS) as (port,),
        psycopg.connect(server.url(DATABASE), port=port, autocommit=True) as distant,
        psycopg.connect(server.url(DATABASE), autocommit=True) as near,
        distant.cursor() as there,
        near.cursor() as here,
    ):
        own_seconds = _bare_seconds(there, times) - _bare_seconds(here, times) - SECONDS
    return min(max(own_seconds, 0.0), MOST_OWN_SECONDS)


def key_of(number: int) -> str:
    return f"{number:040d}"


def id_of(number: int) -> UUID:
    return UUID(int=number)


def fill(alias: str) -> None:
    """Give each user a token, and a thread with a history."""
    from rest_framework.authtoken.models import Token

    from chat.models import Message, Thread

    queries.fill(alias)
    numbers = range(1, queries.USERS + 1)
    Token.objects.using(alias).bulk_create(Token(key=key_of(number), user_id=number) for number in numbers)
    threads = (Thread(pk=id_of(number), owner_id=number, title="A thread") for number in numbers)
    Thread.objects.using(alias).bulk_create(threads)
    said = [message for number in numbers for _ in range(HISTORY // 2) for message in _said(number)]
    Message.objects.using(alias).bulk_create(said)


def _said(number: int, content: str = "It is all there. " * 20) -> list[Any]:
    from chat.models import Message

    question = Message(thread_id=id_of(number), role="user", content="What did I say?", author_id=number)
    reply = Message(
        thread_id=id_of(number), role="assistant", status="streaming", content=content, in_reply_to=question
    )
    return [question, reply]


def as_others_write_it(alias: str, number: int) -> None:
    """Seven round trips: three reads, BEGIN, the question with its empty reply, COMMIT, the reply.

    The history is read as a program mostly reads its models, in whole; the chat itself takes two columns of it.
    """
    from django.db import transaction
    from rest_framework.authtoken.models import Token

    from chat.models import Message, Thread

    user = Token.objects.using(alias).select_related("user").get(key=key_of(number)).user
    thread = Thread.objects.using(alias).get(pk=id_of(number), owner=user)
    list(Message.objects.using(alias).filter(thread=thread).order_by("-pk")[:HISTORY])
    question, reply = _said(number, content="")
    with transaction.atomic(using=alias):
        Message.objects.using(alias).bulk_create([question, reply])
    Message.objects.using(alias).filter(pk=reply.pk, status="streaming").update(content="Much.", status="complete")


def as_we_write_it(alias: str, number: int) -> None:
    """Three: the reads, the transaction, the reply."""
    from rest_framework.authtoken.models import Token

    from chat.models import Message, Thread
    from dbresilience import gather, pipeline

    (token,), (thread,), _ = gather(
        Token.objects.using(alias).select_related("user").filter(key=key_of(number)),
        Thread.objects.using(alias).filter(pk=id_of(number)),
        Message.objects.using(alias).filter(thread=id_of(number)).order_by("-pk")[:HISTORY],
    )
    assert thread.owner_id == token.user.pk
    question, reply = _said(number, content="")
    with pipeline(using=alias):
        Message.objects.using(alias).bulk_create([question, reply])
    Message.objects.using(alias).filter(pk=reply.pk, status="streaming").update(content="Much.", status="complete")


def measure(near: dict[str, str], distant: dict[str, str], set_to_seconds: float, rounds: int) -> str:
    """Return two tables, and what a statement that does nothing takes.

    Args:
        near: the name of the set-up of each alias, beside the server.
        distant: likewise, with the distance between.
        set_to_seconds: what the proxy between is set to.
        rounds: measured turns at a distance; ten times as many beside it.
    """
    from django.db import connections

    tables = []
    for title, names, times in (
        (f"A turn with {SECONDS * 1000:g} ms to the server", distant, rounds),
        ("The same beside it, on loopback", near, rounds * NEAR_ROUNDS),
    ):
        works: dict[str, tuple[str, queries.Work]] = {}
        for alias, name in names.items():
            works[name] = alias, as_we_write_it if name.startswith(OURS) else as_others_write_it
            if name == OURS:
                works[SAME_CODE] = alias, as_others_write_it
        turns = {name: queries.bound(*work) for name, work in works.items()}
        taken = queries.interleaved(turns, times, warm_rounds=min(times, 20), in_a_row=IN_A_ROW)
        ours = {name: turn for name, turn in turns.items() if name.startswith(OURS)}
        held = _held_seconds(ours, min(times, 100)) if ours else {}
        tables.append(table(title, taken, held))
    bare = []
    for names in (distant, near):
        with connections[next(alias for alias, name in names.items() if name == BASELINE)].cursor() as cursor:
            bare.append(_bare_seconds(cursor, 200) * 1000)
    tables.append(
        f"`SELECT 1` alone takes {bare[0]:.2f} ms, and beside the server {bare[1]:.2f}; the proxy is set to "
        f"{set_to_seconds * 1000:.2f} ms.\n"
    )
    return "\n".join(tables)


def _bare_seconds(cursor: Any, times: int) -> float:
    """The median of the shortest round trip: how far the server really is."""
    taken = []
    for _ in range(times):
        began = perf_counter()
        cursor.execute("SELECT 1")
        cursor.fetchone()
        taken.append(perf_counter() - began)
    return statistics.median(taken)


def _held_seconds(turns: dict[str, Callable[[int], None]], times: int) -> dict[str, float]:
    """The medians of what the leases of a turn take together; apart, because whoever listens costs time."""
    from dbresilience import signals

    leases: list[float] = []
    held: dict[str, list[float]] = {name: [] for name in turns}

    def note(held_seconds: float, **details: Any) -> None:
        leases.append(held_seconds)

    def noting(name: str) -> Callable[[int], None]:
        def turn(number: int) -> None:
            leases.clear()
            turns[name](number)
            held[name].append(sum(leases))

        return turn

    signals.connection_released.connect(note)
    try:
        queries.interleaved({name: noting(name) for name in turns}, times, warm_rounds=0, in_a_row=IN_A_ROW)
    finally:
        signals.connection_released.disconnect(note)
    return {name: statistics.median(taken) for name, taken in held.items()}


def table(title: str, times: dict[str, list[float]], held: dict[str, float]) -> str:
    """Return medians, and ratios to the baseline and to the best peer of the same round."""
    medians = {name: statistics.median(taken) for name, taken in times.items()}
    best = min((name for name in times if not name.startswith(OURS)), key=lambda name: medians[name])
    lines = [
        f"| {title} | median ms | × {BASELINE} | × the best of them ({best}) | middle half | connection held, ms |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, taken in times.items():
        ratio = statistics.median(mine / base for mine, base in zip(taken, times[BASELINE], strict=True))
        to_best = [mine / base for mine, base in zip(taken, times[best], strict=True)]
        low, middle, high = statistics.quantiles(to_best, n=4)
        holds = f"{held[name] * 1000:.1f}" if name in held else "all of it"
        lines.append(
            f"| {name} | {medians[name] * 1000:.2f} | {ratio:.2f} | {middle:.2f} | {low:.2f} to {high:.2f} | {holds} |"
        )
    return "\n".join([*lines, ""])
