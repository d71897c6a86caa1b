"""The people who chat: each asks one question after the other, and waits as long as Retry-After says, scaled down."""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections.abc import Iterator

from tests.chaos.questions import MAY_COME_AGAIN, NOTHING, Question
from tests.support.site import Site, manage

PATIENCE = 0.25
"""The part of Retry-After that is waited; the outages are shorter than real ones, too."""
LONGEST_PAUSE_SECONDS = 1.0
MAKE_PEOPLE = """
from django.contrib.auth.models import User
from rest_framework.authtoken.models import Token
for number in range({many}):
    print("token", Token.objects.create(user=User.objects.create(username=f"person{{number}}")).key)
"""


class People:
    """`many` people, one of them for each token; `start()` them, then `join()`."""

    def __init__(self, site: Site, database_url: str, *, seed: int, turns: int, many: int) -> None:
        printed = manage("shell", "-c", MAKE_PEOPLE.format(many=many), database_url=database_url)
        self.tokens = [line.split()[1] for line in printed.splitlines() if line.startswith("token ")]
        self.questions = [Question.of(seed, number) for number in range(turns)]
        self.asked_by: dict[int, str] = {}
        self.stop = threading.Event()
        self._site = site
        self._seed = seed
        self._next: Iterator[int] = itertools.count()
        self._threads = [
            threading.Thread(target=self._live, args=(number, token), name=f"person-{number}", daemon=True)
            for number, token in enumerate(self.tokens)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def are_busy(self) -> bool:
        return any(thread.is_alive() for thread in self._threads)

    def join(self, timeout_seconds: float) -> bool:
        """Wait until all have finished; false if one has not."""
        deadline = time.monotonic() + timeout_seconds
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not self.are_busy()

    @property
    def acknowledged(self) -> int:
        return sum(question.acknowledgement is not None for question in self.questions)

    def _live(self, person: int, token: str) -> None:
        dice = random.Random(f"{self._seed}-person-{person}")
        threads: list[str] = []
        while not self.stop.is_set() and (number := next(self._next)) < len(self.questions):
            question = self.questions[number]
            self.asked_by[number] = token
            if threads and not question.wants_new_thread:
                question.thread = dice.choice(threads[-5:])
            self._ask_until_acknowledged(question, token, dice)
            acknowledged = question.acknowledgement
            if acknowledged is not None and question.thread is None:
                threads.append(acknowledged.body["thread"]["id"])

    def _ask_until_acknowledged(self, question: Question, token: str, dice: random.Random) -> None:
        while not self.stop.is_set():
            answer = question.ask(self._site, token)
            if answer.status not in MAY_COME_AGAIN | {NOTHING} or question.gives_up:
                return
            pause = min((answer.retry_after_seconds or 1.0) * PATIENCE, LONGEST_PAUSE_SECONDS)
            time.sleep(pause * dice.uniform(0.5, 1.0))
