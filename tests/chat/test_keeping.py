"""keeping.py: what is kept is told, also if there could be no more threads when it came."""

from __future__ import annotations

import threading
import uuid

import pytest

from chat.keeping import Keeping
from tests.support.postgres import wait_until


def test_a_thread_that_could_not_start_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def tell(waiting: list[int]) -> None:
        told.extend(waiting)
        for reply_id, what in zip(replies, waiting, strict=True):
            kept.drop(reply_id, what)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    kept: Keeping[int] = Keeping("keeping-test", tell, lambda: 0.01)
    replies = [uuid.uuid4(), uuid.uuid4()]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        kept.keep(replies[0], 1, most=9)
    kept.keep(replies[1], 2, most=9)
    wait_until(lambda: told == [1, 2])
    assert kept.all() == []
