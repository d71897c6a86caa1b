"""measures.py: each lease and statement is measured once, and nothing is while nobody wants to know."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from django.db import OperationalError, ProgrammingError, connections, transaction

from dbresilience import gather, measures, pinned
from dbresilience.measures import Drained
from tests.dbresilience.batches.rows import owners
from tests.dbresilience.batches.tables import create_tables
from tests.dbresilience.conftest import MakeWrapper, in_thread, run


@pytest.fixture
def heard() -> Iterator[list[Drained]]:
    found: list[Drained] = []
    measures.drain()
    measures.subscribe("test", found.append)
    yield found
    measures.unsubscribe("test")


def of(alias: str, heard: list[Drained]) -> Drained:
    """All that was drained for one alias."""
    measures.drain()
    mine = [each for each in heard if each.alias == alias]
    return Drained(
        alias,
        [wait for each in mine for wait in each.waits],
        [hold for each in mine for hold in each.holds],
        [statement for each in mine for statement in each.statements],
    )


def test_each_lease_and_statement_is_measured_once(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    with pytest.raises(ProgrammingError):
        run(wrapper, "SELECT nonsense")
    with transaction.atomic(using=wrapper.alias):
        run(wrapper, "SELECT pg_sleep(0.05)")
        run(wrapper, "SELECT 2")
    found = of(wrapper.alias, heard)
    statements = [each for each in found.statements if "2" in each[0] or "nonsense" in each[0] or "sleep" in each[0]]
    assert [(query, error) for query, _, error in statements] == [
        ("SELECT nonsense", "42703"), ("SELECT pg_sleep(0.05)", None), ("SELECT 2", None),
    ]  # fmt: skip
    assert 0.05 <= statements[1][1] < 0.5
    assert len(found.waits) == len(found.holds)
    assert found.holds[-1] > 0.05
    assert of(wrapper.alias, heard) == found


@pytest.mark.parametrize("together", [False, True])
def test_an_error_that_is_being_handled_is_not_the_statements_own(
    heard: list[Drained], make_wrapper: MakeWrapper, together: bool
) -> None:
    """Django reads every session within an `except AttributeError`."""
    wrapper = make_wrapper()
    create_tables(wrapper)
    try:
        raise AttributeError
    except AttributeError:
        if together:
            gather(owners(wrapper).all(), owners(wrapper).count, using=wrapper.alias)
        else:
            run(wrapper, "SELECT 2")
    assert {error for _, _, error in of(wrapper.alias, heard).statements} == {None}


def test_statements_that_travel_together_are_measured_each(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    create_tables(wrapper)
    before = of(wrapper.alias, heard)
    gather(owners(wrapper).all(), owners(wrapper).count, using=wrapper.alias)
    after = of(wrapper.alias, heard)
    assert len(after.statements) - len(before.statements) == 2
    assert len(after.holds) - len(before.holds) == 1


def test_an_error_that_is_being_handled_is_not_the_statements(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    """Django looks a session up while it handles that there is none yet."""
    wrapper = make_wrapper()
    create_tables(wrapper)
    before = of(wrapper.alias, heard)
    try:
        raise AttributeError
    except AttributeError:
        run(wrapper, "SELECT 1")
        gather(owners(wrapper).all(), owners(wrapper).count, using=wrapper.alias)
    after = of(wrapper.alias, heard)
    assert [error for _, _, error in after.statements[len(before.statements) :]] == [None] * 3


def test_nothing_is_measured_while_nobody_wants_to_know(
    make_wrapper: MakeWrapper, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measures._process(), "subscribers", {})
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    assert wrapper.resources.pool is not None
    assert wrapper.resources.pool.measures is None


def test_none_is_counted_twice_or_lost_by_many_threads(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    assert wrapper.resources.pool is not None
    queues = wrapper.resources.pool.measures
    assert queues is not None
    before = len(of(wrapper.alias, heard).waits)
    threads = [in_thread(lambda: [queues.waits.append(0.0) for _ in range(2000)]) for _ in range(4)]
    while any(thread.is_alive() for thread in threads):
        measures.drain()
    assert len(of(wrapper.alias, heard).waits) - before == 8000


def test_a_forked_child_begins_anew(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    wrapper = make_wrapper()
    run(wrapper, "SELECT 1")
    pid = os.fork()
    if not pid:
        os._exit(len(measures.measures_of(wrapper.alias).waits))  # type: ignore[union-attr]
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert of(wrapper.alias, heard).waits


def test_it_is_known_why_each_lease_ended(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    """Nearly all end with their statement or transaction; those that do not are told apart."""
    wrapper = make_wrapper(pool={"max_size": 1})
    create_tables(wrapper)
    measures.drain()
    heard.clear()

    def ends() -> Counter[str]:
        found = of(wrapper.alias, heard)
        counted: Counter[str] = Counter()
        for each in heard:
            counted.update(each.ends if each.alias == wrapper.alias else {})
        assert counted.total() == len(found.holds)
        return counted

    def lose() -> None:
        with wrapper.cursor() as cursor, pytest.raises(OperationalError):
            cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    def leave_open() -> None:
        wrapper.cursor().execute("BEGIN")

    def hold_and_end() -> None:
        mine = connections[wrapper.alias]
        mine.set_autocommit(False)
        run(mine, "SELECT 1")  # type: ignore[arg-type]

    def leave_to_a_thread_that_ends() -> None:
        in_thread(hold_and_end).join()
        assert wrapper.resources.pool is not None
        assert wrapper.resources.pool.reclaim_orphans()

    def in_transaction() -> None:
        with transaction.atomic(using=wrapper.alias):
            run(wrapper, "SELECT 1")

    def in_pin() -> None:
        with pinned(wrapper.alias):
            run(wrapper, "SELECT 1")

    works: dict[str, Callable[[], object]] = {
        "statement": lambda: run(wrapper, "SELECT 1"),
        "transaction": in_transaction,
        "pinned": in_pin,
        "batch": lambda: gather(owners(wrapper).all(), owners(wrapper).count, using=wrapper.alias),
        "request": lambda: (leave_open(), wrapper.close_if_unusable_or_obsolete()),
        "close": lambda: (leave_open(), wrapper.close()),
        "lost": lose,
        "thread_ended": leave_to_a_thread_that_ends,
    }
    for reason, work in works.items():
        before = ends()
        work()
        assert ends() - before == {reason: 1}, reason
    assert set(works) | {"retry"} == set(measures.REASONS)


def test_a_lease_that_ends_for_another_attempt(heard: list[Drained], make_wrapper: MakeWrapper) -> None:
    """Where leases last as long as the request, `retry` gives the connection back before it waits."""
    wrapper = make_wrapper(resilience={"lease": "request"})
    run(wrapper, "SELECT 1")
    wrapper.release_early()
    of(wrapper.alias, heard)
    assert {"retry": 1} in [each.ends for each in heard if each.alias == wrapper.alias]
