"""gathering.py: what reads return together is what each returns alone."""

from __future__ import annotations

from typing import Any

import hypothesis
from django.db import transaction
from hypothesis import strategies as st

from dbresilience import gather, pipeline
from dbresilience.base import DatabaseWrapper
from tests.dbresilience.batches.generated import generated
from tests.dbresilience.batches.programs import described
from tests.dbresilience.batches.reads import READS, fill, lists, shown

BLOCKS = {
    "outside": None,
    "atomic": lambda alias: transaction.atomic(using=alias),
    "pipeline": lambda alias: pipeline(using=alias),
}


def one_by_one(alias: str, names: list[str]) -> Any:
    results = []
    for name in names:
        read = READS[name](alias)
        results.append(shown(read() if callable(read) else list(read)))
    return results


def together(alias: str, names: list[str]) -> Any:
    return shown(gather(*(READS[name](alias) for name in names), using=alias))


def outcome(of: Any, alias: str, names: list[str], block: Any) -> Any:
    try:
        if block is None:
            return of(alias, names)
        with block(alias):
            return of(alias, names)
    except Exception as error:
        return described(error)


def test_reads_return_what_each_returns_alone(ours: DatabaseWrapper) -> None:
    """Lists of reads that are generated, outside of transactions and within."""
    fill(ours.alias)

    @generated
    @hypothesis.given(names=lists, where=st.sampled_from(sorted(BLOCKS)))
    def same(names: list[str], where: str) -> None:
        expected = outcome(one_by_one, ours.alias, names, BLOCKS[where])
        failing = [name for name in names if isinstance(outcome(one_by_one, ours.alias, [name], BLOCKS[where]), tuple)]
        seen = outcome(together, ours.alias, names, BLOCKS[where])
        if len(failing) > 1:
            # The first to be told is one of them.
            assert seen in [outcome(one_by_one, ours.alias, [name], BLOCKS[where]) for name in failing]
        else:
            assert seen == expected
        assert ours.resources.snapshot().in_use == 0

    same()
