"""A connection whose statements may wait in a batch, and what sends them."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import psycopg

from .batches import Batch

if TYPE_CHECKING:
    from .lease import Lease

    _Connection = psycopg.Connection[Any]
else:
    _Connection = object


class BatchingMixin(_Connection):
    """A connection whose statements may wait in a batch."""

    batch: Batch | None = None

    begins_with_statement = False
    """Whether the statement that is about to be sent, or to wait, brings BEGIN along (see `messages`)."""

    lease: Lease | None = None

    def send_waiting(self, *, asking: Any = None) -> None:
        """Send what waits in the batch, if anything does.

        Args:
            asking: the cursor whose result is asked for.

        Raises:
            psycopg.Error: that of the first statement that failed.
        """
        batch = self.batch
        if batch is None or not batch.waiting:
            return
        try:
            with self.lock:
                self.wait(batch.run())
        except psycopg.Error as error:
            if self.lease is not None:
                self.lease.last_error = error
            if batch.failed is not None and batch.failed.cursor is asking:
                batch.failure = None
            raise
        finally:
            batch.report_slow()

    def enter_batch(self, wrapper: Any) -> Batch:
        """Let statements wait until the batch is left; what waits then is left to whoever ends the transaction."""
        if self.batch is not None and self.batch.is_open:
            return self.batch.enter()
        wrapper.send_waiting()  # what an earlier one has left
        self.batch = Batch(self, wrapper)  # type: ignore[arg-type]  # a mixin of that class
        return self.batch

    # psycopg's own blocks send without asking `_start_query`.

    def transaction(self, *args: Any, **kwargs: Any) -> Any:
        """Run a transaction as psycopg does."""
        self.send_waiting()
        return super().transaction(*args, **kwargs)

    def pipeline(self) -> Any:
        """Enter psycopg's pipeline mode."""
        self.send_waiting()
        return super().pipeline()

    def _start_query(self) -> Any:
        if self.begins_with_statement or (self._autocommit and self.batch is None):
            return ()
        return self._start_query_after_batch()

    def _start_query_after_batch(self) -> Generator[Any, Any, None]:
        # Whatever is no statement of a text cursor (COPY, a named cursor) goes after what waits.
        if self.batch is not None and self.batch.waiting:
            yield from self.batch.run()
        yield from super()._start_query()

    def _commit_gen(self) -> Any:
        batch = self.batch
        if batch is not None and batch.waiting:
            yield from batch.run(commit=True)
        else:
            yield from super()._commit_gen()

    def _rollback_gen(self) -> Any:
        if self.batch is not None:
            self.batch.drop()
        yield from super()._rollback_gen()
