"""What a forked child does with its parent's connections: forget them, without a byte on the wire.

Closing them would send Terminate on the parent's sessions. Their descriptors are pointed at the
null device instead, so that not even a destructor can reach the server.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

from psycopg.pq import ConnStatus

if TYPE_CHECKING:
    from .pool import Pool


def forget(pools: Iterable[Pool]) -> None:
    """Let go of everything `pools` have; called in the child, where only this thread exists."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        for pool in pools:
            _forget(pool, null)
    finally:
        os.close(null)


def _forget(pool: Pool, null: int) -> None:
    generation = pool.recovery.forget_threads()
    if generation is not None:
        generation.abandon()
    for lease in list(pool.leases.values()):
        if lease.holder is not None:
            lease.holder.forget_connection()
    pool.leases.clear()
    for connection in pool.recovery.physical.all():
        if connection.pgconn.status == ConnStatus.OK:
            os.dup2(null, connection.pgconn.socket)
