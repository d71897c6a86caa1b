"""line.py: who stands in line is called when there is something to take, and does not stay for nothing."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from dbresilience.line import Line
from tests.support.postgres import wait_until

from .conftest import in_thread

SECONDS = 10.0
"""Nobody waits for so long in these tests; who did was forgotten."""


class Things:
    """What is waited for, taken and given back as connections are."""

    def __init__(self, number: int) -> None:
        self.spares = list(range(number))
        self.line: Line[int] = Line(self.spares, self.take)

    def take(self) -> int | None:
        try:
            thing = self.spares.pop()
        except IndexError:
            return None
        if self.line.standing:
            self.line.tell()
        return thing

    def give_back(self, thing: int) -> None:
        self.spares.append(thing)
        if self.line.standing:
            self.line.tell()

    def wait(self, seconds: float = SECONDS, *, is_worth_it: Callable[[], bool] = lambda: True) -> int | None:
        return self.line.wait(seconds, is_worth_it)


class CountedLock:
    """What the line calls with; `meanwhile` happens once, while a call is taken back."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None, *, hands_over: bool = False) -> None:
        self.is_free = False
        self.released = 0
        self._hands_over = hands_over
        self._meanwhile: Callable[[], object] = meanwhile

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        was_free, self.is_free = self.is_free, False
        if not blocking and was_free:
            meanwhile, self._meanwhile = self._meanwhile, lambda: None
            meanwhile()
        return was_free

    def release(self) -> None:
        if self.is_free:
            raise RuntimeError("release unlocked lock")
        self.is_free = not self._hands_over
        self.released += 1


@contextmanager
def waiting(things: Things, number: int = 1) -> Iterator[list[int | None]]:
    """So many stand in line when the block begins; gives what each has been given, when all have left."""
    given: list[int | None] = []
    threads = [in_thread(lambda: given.append(things.wait())) for _ in range(number)]
    wait_until(lambda: len(things.line.standing) == number)
    yield given
    for thread in threads:
        thread.join(SECONDS / 2)
    assert not any(thread.is_alive() for thread in threads)
    assert things.line.standing == []


def test_who_waits_is_called_when_something_is_given_back() -> None:
    things = Things(0)
    with waiting(things) as given:
        things.give_back(7)
    assert given == [7]


def test_two_at_once_are_for_two() -> None:
    """The first who is called has not run yet when the second is given back."""
    things = Things(0)
    with waiting(things, 3) as given:
        things.spares += [1, 2]
        things.line.tell()
        wait_until(lambda: len(given) == 2)
        assert len(things.line.standing) == 1
        things.give_back(3)
    assert sorted(given) == [1, 2, 3]  # type: ignore[type-var]  # nobody was given nothing


def test_what_lies_there_is_taken_without_waiting() -> None:
    assert Things(1).wait() == 0


def test_nothing_is_waited_for_that_is_not_worth_it() -> None:
    assert Things(0).wait(is_worth_it=lambda: False) is None


@pytest.mark.timed
def test_the_wait_ends_in_time() -> None:
    started = time.monotonic()
    assert Things(0).wait(0.05) is None
    assert 0.05 <= time.monotonic() - started < 1.0


def test_a_call_is_taken_back_when_somebody_was_quicker() -> None:
    """Who was called, and has not run yet, does not run for nothing."""
    things, looked = Things(0), []
    things.line.standing.append(object())
    things.give_back(1)
    assert things.take() == 1
    assert things.wait(0.05, is_worth_it=lambda: looked.append(None) is None) is None
    assert len(looked) == 1


def test_nobody_is_called_beside_one_who_has_not_run_yet() -> None:
    """Python 3.14 hands a lock over to who sleeps, so each release would wake another."""
    things = Things(0)
    things.line._call = lock = CountedLock(hands_over=True)  # type: ignore[assignment]
    things.line.standing += [object(), object()]
    things.give_back(1)
    things.give_back(2)
    assert lock.released == 1
    assert things.wait() == 2
    assert lock.released == 2  # whoever leaves sees to what is left


def test_what_comes_while_a_call_is_taken_back_calls_again() -> None:
    things = Things(0)
    things.line.standing.append(object())
    things.line._call = lock = CountedLock(lambda: things.give_back(2))  # type: ignore[assignment]
    things.give_back(1)
    assert things.take() == 1
    assert lock.is_free


def test_who_is_sent_on_leaves_with_nothing_and_alone() -> None:
    things = Things(0)
    with waiting(things, 2) as given:
        things.line.send_on()
        wait_until(lambda: given == [None])
        assert len(things.line.standing) == 1
        things.give_back(7)
    assert given == [None, 7]


def test_nobody_is_sent_on_who_comes_later() -> None:
    things = Things(0)
    things.line.send_on()
    with waiting(things) as given:
        things.give_back(7)
    assert given == [7]


def test_no_more_are_sent_on_than_stand_there() -> None:
    """Many connections at once, as after an outage; who comes later has none to go to."""
    things = Things(0)
    with waiting(things, 2) as given:
        for _ in range(10):
            things.line.send_on()
    assert given == [None, None]
    with waiting(things) as given:
        things.give_back(7)
    assert given == [7]


def test_who_is_sent_on_and_has_got_a_spare_leaves_it_to_nobody() -> None:
    things = Things(0)

    def both() -> bool:
        if not things.spares:
            things.spares.append(7)
            things.line.send_on()
        return True

    assert things.wait(is_worth_it=both) == 7
    assert things.line._sent_on == []


def test_an_end_is_for_all_and_for_who_comes_later() -> None:
    things = Things(0)
    with waiting(things, 5) as given:
        things.line.end()
    assert given == [None] * 5
    assert things.wait(is_worth_it=lambda: pytest.fail("it goes on waiting")) is None


def test_who_is_interrupted_takes_no_call_along() -> None:
    """As by Ctrl-C, between the call and the look: what was given back is for the next."""
    things = Things(0)

    def interrupted() -> bool:
        if not things.spares:
            things.spares.append(7)
            raise KeyboardInterrupt
        return True

    with waiting(things) as given:
        with pytest.raises(KeyboardInterrupt):
            things.wait(is_worth_it=interrupted)
    assert given == [7]


def test_in_a_crowd_nobody_is_forgotten() -> None:
    """Sixteen threads share three things for a second, and each gives back what it takes."""
    things, longest, ends = Things(3), [], time.monotonic() + 1.0

    def hammer() -> None:
        slowest = 0.0
        while time.monotonic() < ends:
            started = time.monotonic()
            thing = things.take()
            if thing is None:
                thing = things.wait()
            slowest = max(slowest, time.monotonic() - started)
            assert thing is not None
            if random.random() < 0.3:
                time.sleep(0.0005)
            things.give_back(thing)
        longest.append(slowest)

    threads = [threading.Thread(target=hammer) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    assert len(longest) == 16
    assert max(longest) < SECONDS / 2
    assert sorted(things.spares) == [0, 1, 2]
