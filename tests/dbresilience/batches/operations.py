"""Programs that are generated: lists of operations, each by its name in `programs.Run` and with its arguments."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from tests.dbresilience.batches.programs import ASKS, READS, Operation

QUERIES: list[tuple[str, list[Any] | None]] = [
    ("SELECT id, name FROM batches_owner ORDER BY id", None),
    ("SELECT %s, %s", [1, "a % sign; and 'quotes'"]),
    ("INSERT INTO batches_item (label) VALUES (%s) RETURNING id", ["raw"]),
    ("UPDATE batches_owner SET points = points + 1", None),
    ("UPDATE batches_owner SET points = -1", None),
    ("DELETE FROM batches_item", None),
    ("INSERT INTO batches_item (label) VALUES ('a'); SELECT count(*) FROM batches_item", None),
    ("SELECT 1 / (SELECT count(*) FROM batches_owner)", None),
    ("SELECT nonsense", None),
    ("SELCT", None),
    ("SELECT $1", None),
    ("", None),
    ("-- nothing", None),
    ("SELECT 'never ends", None),
    ("SET CONSTRAINTS ALL IMMEDIATE", None),
    ("SET LOCAL statement_timeout = 5000", None),
    ("LOCK TABLE batches_note", None),
    ("SHOW transaction_isolation", None),
    ("VACUUM batches_note", None),
    ("CREATE TABLE made_here (n int)", None),
    ("/* said first */ COPY batches_owner TO STDOUT", None),
    ("COPY batches_owner TO STDOUT", None),
    ("SELECT count(*) FROM made_here", None),
    ("EXPLAIN (COSTS OFF) SELECT 1", None),
    ("SELECT pg_typeof('unknown'), 'unknown'", None),
    ("DO $$ BEGIN INSERT INTO batches_item (label) VALUES ('done'); END $$", None),
    ("WITH gone AS (DELETE FROM batches_owner RETURNING id) SELECT count(*) FROM gone", None),
]

numbers = st.integers(1, 4)
names = st.sampled_from(["a", "b", "c", "d"])
points = st.sampled_from([-1, 0, 1, 5])
ranks = st.sampled_from([None, None, 1, 2])
owner_rows = st.lists(st.tuples(numbers, names, points), max_size=3)
conflicts = st.sampled_from([
    {},
    {},
    {"ignore_conflicts": True},
    {"update_conflicts": True, "unique_fields": ["id"], "update_fields": ["points"]},
])  # fmt: skip
hows = st.sampled_from([{}, {"force_insert": True}, {"force_update": True}, {"update_fields": ["name"]}])
some_asks = st.sampled_from(["nothing", "nothing", "nothing", *ASKS])
few_queries = st.lists(st.sampled_from([query for query, params in QUERIES[:6] if not params]), min_size=1, max_size=3)


def _operation(name: str, *arguments: st.SearchStrategy[Any]) -> st.SearchStrategy[Operation]:
    return st.tuples(st.just(name), *arguments)


simple = st.one_of(
    _operation("create_owner", numbers, names, points),
    _operation("create_owner", numbers, names, st.just(1)),
    _operation("create_item", st.none() | numbers, names, ranks),
    _operation("create_note", st.none() | numbers, st.none() | numbers),
    _operation("save_owner", numbers, names, hows),
    _operation("change_owner", numbers, points),
    _operation("bulk_create_owners", owner_rows, conflicts),
    _operation("bulk_create_items", st.lists(ranks, max_size=3), st.sampled_from([None, 1])),
    _operation("bulk_update_owners", points),
    _operation("update_owners", names, points, st.booleans()),
    _operation("update_items", ranks, st.booleans()),
    _operation("update_through_owner", names),
    _operation("delete_owner", numbers),
    _operation("delete_items", names),
    _operation("get_or_create", numbers, names),
    _operation("update_or_create", numbers, names),
    _operation("add_items", numbers),
    _operation("get", numbers),
    _operation("read", st.sampled_from(sorted(READS))),
    _operation("on_commit", numbers),
    st.tuples(st.sampled_from(QUERIES), some_asks).map(lambda drawn: ("raw", *drawn[0], drawn[1])),
    _operation("one_cursor", few_queries),
    _operation("executemany", st.lists(numbers, max_size=3)),
    _operation("savepoint", st.lists(st.integers(100, 10**6), unique=True, max_size=2), st.booleans()),
)
operations = st.one_of(
    simple,
    simple,
    simple,
    simple,
    simple,
    st.deferred(lambda: _operation("inner", st.lists(operations, max_size=4))),
    st.deferred(lambda: _operation("inner_boom", st.lists(simple, max_size=3))),
    st.deferred(lambda: _operation("without_savepoint", st.lists(simple, max_size=3))),
    _operation("set_rollback"),
)
programs = st.lists(operations, max_size=10).flatmap(
    lambda program: st.sampled_from([program, program, program, [*program, ("boom",)]])
)
