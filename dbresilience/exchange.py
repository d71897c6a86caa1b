"""One round trip of several statements, in libpq's pipeline mode."""

from __future__ import annotations

from collections.abc import Container, Generator
from time import perf_counter
from typing import Any

import psycopg
from psycopg.generators import send
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import Wait

_READABLE = Wait.R
_ACTIVE = int(TransactionStatus.ACTIVE)
_OK = int(ConnStatus.OK)


def exchange(
    pgconn: Any,
    texts: list[bytes],
    *,
    timed: range,
    flushed: Container[int],
    answers: list[PGresult],
    durations: list[float],
) -> Generator[Any, Any, None]:
    """Send statements together, and take their answers.

    Args:
        pgconn: the connection, on which nothing is under way.
        texts: the statements.
        timed: the numbers of those of which somebody wants to know how long they took.
        flushed: the numbers of those whose answers, and all before, come as soon as they are done; the others wait for
            one of these, or for the end. More answers would wake this thread for nothing.
        answers: where the answers go, as far as they come.
        durations: where the seconds of the timed ones go.

    Raises:
        psycopg.OperationalError: the connection was lost.
    """
    pgconn.enter_pipeline_mode()
    try:
        for number, text in enumerate(texts):
            pgconn.send_query_params(text, None)
            if number in flushed:
                pgconn.send_flush_request()
        pgconn.pipeline_sync()
        if pgconn.flush():
            yield from send(pgconn)
        began = perf_counter()
        for number in range(len(texts)):
            answers.append((yield from _read(pgconn)))
            pgconn.get_result()  # None, which ends each answer and is never waited for
            if number in timed:
                ended = perf_counter()
                durations.append(ended - began)
                began = ended
        yield from _read(pgconn)  # the end
    finally:
        if pgconn.status == _OK and pgconn.transaction_status != _ACTIVE:
            pgconn.exit_pipeline_mode()


def _read(pgconn: Any) -> Generator[Any, Any, PGresult]:
    # psycopg's `fetch` lets go of Python's global lock three times for each answer, and each time wakes a thread that
    # waits for it; `is_busy` does so once, the others do not. And `fetch` hands notifications to whoever wants them:
    # a handler that raises would cost what comes after them.
    while pgconn.is_busy():
        while not (yield _READABLE):
            pass
        pgconn.consume_input()
    answer: PGresult | None = pgconn.get_result()
    if answer is None:
        raise psycopg.OperationalError("The connection was closed while an answer was waited for.")
    return answer
