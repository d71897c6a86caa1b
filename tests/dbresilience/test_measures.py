"""measures.py: each lease and statement is measured once, and nothing is while nobody wants to know."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from django.db import ProgrammingError, transaction

from dbresilience import gather, measures
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
