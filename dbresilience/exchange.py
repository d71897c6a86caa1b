"""One round trip of several statements, in libpq's pipeline mode."""

from __future__ import annotations

from collections.abc import Generator
from time import perf_counter
from typing import Any

from psycopg.generators import fetch, send
from psycopg.pq import ConnStatus, TransactionStatus
from psycopg.pq.abc import PGresult

_ACTIVE = int(TransactionStatus.ACTIVE)
_OK = int(ConnStatus.OK)


def exchange(
    pgconn: Any, texts: list[bytes], timed: range, answers: list[PGresult], durations: list[float]
) -> Generator[Any, Any, None]:
    """Send statements together, and take their answers.

    Args:
        pgconn: the connection, on which nothing is under way.
        texts: the statements.
        timed: the numbers of those of which somebody wants to know how long they took.
        answers: where the answers go, as far as they come.
        durations: where the seconds of the timed ones go.

    Raises:
        psycopg.OperationalError: the connection was lost.
    """
    pgconn.enter_pipeline_mode()
    try:
        for number, text in enumerate(texts):
            pgconn.send_query_params(text, None)
            # So that it is answered as soon as it is done: it shows how long it took, the first with its way and BEGIN
            # as if it went alone. More answers would wake this thread for nothing; the last comes with the sync.
            if number in timed and number + 1 < len(texts):
                pgconn.send_flush_request()
        pgconn.pipeline_sync()
        yield from send(pgconn)
        began = perf_counter()
        for number in range(len(texts)):
            answers.append((yield from fetch(pgconn)))
            pgconn.get_result()  # None, which ends each answer and is never waited for
            if number in timed:
                ended = perf_counter()
                durations.append(ended - began)
                began = ended
        yield from fetch(pgconn)
    finally:
        if pgconn.status == _OK and pgconn.transaction_status != _ACTIVE:
            pgconn.exit_pipeline_mode()
