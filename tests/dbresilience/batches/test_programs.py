"""pipelines.py: what a program does in `pipeline()` is what it does in Django's own `atomic()`."""

from __future__ import annotations

from typing import Any

import hypothesis
from django.db import transaction

from dbresilience import pipeline
from tests.dbresilience.batches.generated import generated
from tests.dbresilience.batches.operations import programs
from tests.dbresilience.batches.programs import Boom, Operation, Run, Seen
from tests.dbresilience.batches.tables import empty_tables, rows_of


def agree(expected: Seen, seen: Seen) -> bool:
    """Whether nobody can tell the two apart, but by when an error of something that waited is raised."""
    if expected.error == seen.error:
        known = len(expected.results)
        return expected.results == seen.results[:known] and (expected.error is not None or known == len(seen.results))
    # The program's own error, or that of a query after set_rollback(), came before anybody asked for what had waited.
    own = (Boom, transaction.TransactionManagementError)
    return expected.error is not None and seen.error is not None and issubclass(seen.error[0], own)


def compare(plain: Any, ours: Any, program: list[Operation]) -> None:
    empty_tables(ours)
    expected = Run(plain.alias)(program, lambda: transaction.atomic(using=plain.alias))
    stored = rows_of(plain)
    empty_tables(ours)
    seen = Run(ours.alias)(program, lambda: pipeline(using=ours.alias))
    assert agree(expected, seen), f"{program}\n{expected}\n{seen}"
    assert seen.hooks == expected.hooks
    assert rows_of(ours) == stored
    assert ours.resources.snapshot().in_use == 0, (program, seen)


def test_programs_do_what_they_do_in_plain_django(ours: Any, plain: Any) -> None:
    """Results, errors with their words, `on_commit` functions and rows, for programs that are generated."""

    @generated
    @hypothesis.given(program=programs)
    def same(program: list[Operation]) -> None:
        compare(plain, ours, program)

    same()
