"""`pipeline()`: a transaction whose statements travel together, with BEGIN and COMMIT, until a result is asked for."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from types import TracebackType
from typing import Any, TypeVar, overload

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.transaction import Atomic

from .batches import IS_SUPPORTED, Batch

F = TypeVar("F", bound=Callable[..., Any])


@overload
def pipeline(using: F) -> F: ...


@overload
def pipeline(using: str = DEFAULT_DB_ALIAS, *, durable: bool = False) -> ContextDecorator: ...


def pipeline(using: Any = DEFAULT_DB_ALIAS, *, durable: bool = False) -> Any:
    """Be an `atomic()` whose statements wait for each other: one round trip for all, where none needs a result.

    What asks for one sends what waits: fetching, `rowcount`, an insert that returns a key of the server's, the count
    of an `update()` that somebody looks at. Each statement has the result, and the error, that it has in `atomic()`.
    An error is raised by whoever sends what waited, at the latest by the end of the block; a note of its cause names
    the statement, and the transaction is rolled back. What is undone before it was sent is never sent. An inner
    `atomic()` is sent when it ends, since its errors are its own. Statements run one by one, as in `atomic()`, on other
    backends, with `server_side_binding` or a `prepare_threshold`, and if they are several in one text.

    If the connection is lost before the end was answered, the outcome is looked up, provided that the transaction's id
    has arrived, which the server sends before COMMIT begins; else it is `CommitOutcomeUnknown`. A unit that may run
    twice then goes again with `retry(idempotent=True)`.

    Args:
        using: the alias; or the function, where it is written as a decorator without an alias.
        durable: as of `atomic()`.
    """
    if callable(using):
        return _Pipeline(DEFAULT_DB_ALIAS, durable)(using)
    return _Pipeline(using, durable)


class _Pipeline(ContextDecorator):
    def __init__(self, using: str, durable: bool) -> None:
        self._using, self._durable = using, durable
        self._entered: list[tuple[Atomic, Any, Batch | None]] = []

    def _recreate_cm(self) -> _Pipeline:
        return _Pipeline(self._using, self._durable)  # a decorated function may run in many threads at once

    def __enter__(self) -> None:
        atomic, batch = Atomic(self._using, True, self._durable), None
        atomic.__enter__()
        wrapper: Any = connections[self._using]
        if IS_SUPPORTED and hasattr(wrapper, "batch_transaction"):
            try:
                batch = wrapper.batch_transaction()
            except BaseException as error:
                atomic.__exit__(type(error), error, error.__traceback__)
                raise
        self._entered.append((atomic, wrapper, batch))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        atomic, wrapper, batch = self._entered.pop()
        if batch is None:
            atomic.__exit__(kind, error, trace)
            return
        try:
            try:
                _finish(wrapper, batch, error)
            except BaseException as failure:
                batch.leave()
                atomic.__exit__(type(failure), failure, failure.__traceback__)
                raise
            batch.leave()
            atomic.__exit__(kind, error, trace)
        finally:
            batch.report_slow()


def _finish(wrapper: Any, batch: Batch, error: BaseException | None) -> None:
    """Let no error of what waited pass unseen.

    Raises:
        DatabaseError: a statement failed, and whoever was told had asked for something else and went on.
    """
    ends_in_statement = all(wrapper.savepoint_ids[-1:]) and not wrapper.needs_rollback
    if error is None and not ends_in_statement:
        wrapper.send_waiting()  # else COMMIT or RELEASE takes it along
    if batch.failure is not None and not batch.is_told_by(error):
        with wrapper.wrap_database_errors:
            raise batch.failure
