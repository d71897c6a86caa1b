"""compilers.py: how rows are inserted, few of them and many."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group
from django.db import connection
from django.test.utils import CaptureQueriesContext

from dbresilience.compilers import FEW_ROWS

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
