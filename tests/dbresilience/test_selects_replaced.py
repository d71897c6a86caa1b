"""selects.py: what programs and packages put in the place of Django's is asked."""

from __future__ import annotations

import re
from copy import copy
from functools import wraps
from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.db.backends.postgresql.operations import DatabaseOperations
from django.db.models import F
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.db.models.sql.compiler import SQLAggregateCompiler, SQLCompiler

from dbresilience import select_keys, selects
from dbresilience.compilers import compiles_as_django, our_compilers
from dbresilience.select_keys import key_of
from tests.dbresilience.compiling import compiled, is_cached


def test_who_replaces_djangos_writing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As packages do that put a comment into each statement."""
    queryset = User.objects.filter(pk=1).order_by("-username")
    assert is_cached(queryset)
    written = SQLCompiler.as_sql

    def with_a_comment(self: SQLCompiler, *args: Any, **kwargs: Any) -> Any:
        text, params = written(self, *args, **kwargs)
        return f"{text} /* by somebody */", params

    monkeypatch.setattr(SQLCompiler, "as_sql", with_a_comment)

    for _ in range(2):
        mine, _ = compiled(queryset)
        assert "by somebody" in mine.as_sql()[0]
    assert select_keys.is_djangos(written)
    assert not select_keys.is_djangos(with_a_comment)
    assert not select_keys.is_djangos(wraps(written)(with_a_comment))


def test_a_compiler_that_knows_more_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one of a later Django may, or of a package: what it needs to know would be missing."""
    prepare = SQLCompiler.pre_sql_setup

    def and_more(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.more = True
        return prepare(self, *args, **kwargs)

    monkeypatch.setattr(SQLCompiler, "pre_sql_setup", and_more)
    monkeypatch.setattr(select_keys, "djangos_methods", select_keys._methods_of(SQLCompiler))

    assert not is_cached(User.objects.filter(pk=1).order_by("date_joined"))


def test_each_part_of_djangos_writing_may_be_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    queryset = User.objects.filter(pk=1).order_by("-email")
    assert is_cached(queryset)
    from_clause = SQLCompiler.get_from_clause

    def only(self: SQLCompiler) -> Any:
        texts, params = from_clause(self)
        return [f"ONLY {texts[0]}", *texts[1:]], params

    monkeypatch.setattr(SQLCompiler, "get_from_clause", only)

    for _ in range(2):
        mine, _ = compiled(queryset)
        assert "FROM ONLY" in mine.as_sql()[0]


def test_names_may_be_quoted_by_who_asks() -> None:
    """As where each customer has a schema, which is that of the connection."""

    class Operations(DatabaseOperations):
        schema = "a"

        def quote_name(self, name: str) -> str:
            return f'"{self.schema}"."{name}"' if name == "auth_user" else super().quote_name(name)

    ours = our_compilers(connection.ops.compiler_module, Operations)
    theirs = copy(connections["default"])
    theirs.ops = Operations(theirs)
    for schema in ("a", "b"):
        Operations.schema = schema
        compiler = ours.SQLCompiler(User.objects.filter(pk=1).query, theirs, "default")
        text, _ = compiler.as_sql()
        assert f'"{schema}"."auth_user"."username"' in text
        assert f'FROM "{schema}"."auth_user" WHERE "{schema}"."auth_user"."id"' in text


def test_a_condition_that_is_written_otherwise_each_time() -> None:
    texts = count()

    class Changing(Exact):
        def as_sql(self, compiler: Any, connection: Any, **kwargs: Any) -> Any:
            text, params = super().as_sql(compiler, connection, **kwargs)
            return f"{text} /* {next(texts)} */", params

    queryset = User.objects.order_by("last_login").filter(Changing(F("pk"), 1))
    for _ in range(2):
        text, params = queryset.query.get_compiler(connection=connection).as_sql()
        end = r' WHERE "auth_user"."id" = %s /\* \d+ \*/ ORDER BY "auth_user"."last_login" ASC'
        assert re.fullmatch(r'SELECT [^*]+ FROM "auth_user"' + end, text)
        assert params == (1,)
    assert is_cached(User.objects.order_by("last_login").filter(pk=1))  # which it says nothing of


def test_a_query_of_no_model_is_djangos() -> None:
    query: Any = Query(None)  # type: ignore[arg-type]  # as Django makes them for conditions of constraints
    assert key_of(query) is None


def test_queries_and_compilers_of_others_are_asked() -> None:
    class Their(Query):
        pass

    class TheirCompiler(SQLCompiler):
        def as_sql(self, *args: Any, **kwargs: Any) -> Any:
            return super().as_sql(*args, **kwargs)

    queryset = User.objects.filter(pk=1)
    queryset.query = queryset.query.chain(Their)

    assert not is_cached(queryset)
    assert not compiles_as_django(TheirCompiler)
    assert not compiles_as_django(SQLAggregateCompiler)
    assert not compiles_as_django(type("SQLCompiler", (SQLCompiler,), {"__module__": "their.compiler"}))


def test_no_more_are_kept_than_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selects, "MOST_SELECTS", 2)
    kept = User._meta.__dict__.setdefault(selects._ATTRIBUTE, {})
    kept.clear()
    for field in ("username", "email", "first_name", "last_name"):
        assert is_cached(User.objects.filter(pk=1).order_by(field))
        assert len(kept) <= 2
