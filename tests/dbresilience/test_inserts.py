"""compilers.py: how rows are inserted, few of them and many."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.db.backends.postgresql.compiler import SQLInsertCompiler as DjangosInsertCompiler
from django.test.utils import CaptureQueriesContext

from dbresilience.compilers import FEW_ROWS, our_compilers

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(("count", "is_few"), [(1, True), (2, True), (FEW_ROWS, True), (FEW_ROWS + 1, False)])
def test_few_rows_are_inserted_as_values_and_many_as_arrays(count: int, is_few: bool) -> None:
    """PostgreSQL plans arrays quickly, psycopg writes them slowly."""
    with CaptureQueriesContext(connection) as captured:
        made = Group.objects.bulk_create(Group(name=f"group {number}") for number in range(count))

    (sql,) = [query["sql"] for query in captured if query["sql"].startswith("INSERT")]
    assert ("UNNEST" not in sql) == is_few
    assert [group.name for group in Group.objects.order_by("pk")] == [group.name for group in made]
    assert all(group.pk for group in made)


def test_an_engine_that_assembles_rows_itself_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    class Assembling(DjangosInsertCompiler):
        def assemble_as_sql(self, fields: Any, value_rows: Any) -> Any:
            asked.append(len(value_rows))
            return super().assemble_as_sql(fields, value_rows)

    module = ModuleType("an engine's compilers")
    module.SQLInsertCompiler = Assembling  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ours = our_compilers(module.__name__, type(connection.ops))
    monkeypatch.setattr(connection.ops, "_cache", ours, raising=False)
    for count in (1, 3, 6):
        Group.objects.bulk_create(Group(name=f"group {count} {number}") for number in range(count))
    assert asked == [1, 3, 6]
