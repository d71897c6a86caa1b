"""Another connection in place of a dead one, for a statement that may go on with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .opening import OpeningMixin

if TYPE_CHECKING:
    from .executing import LeasedCursorMixin


class ExchangingMixin(OpeningMixin):
    """Exchanges the connection under Django's wrapper and under one cursor, without anybody noticing."""

    _pins = 0

    def can_exchange(self, cursor: LeasedCursorMixin) -> bool:
        """Whether nothing but `cursor` depends on the connection, and nothing was left on its session."""
        lease = self._lease
        return (
            lease is not None
            and lease is cursor.lease
            and cursor.can_move
            and lease.cursors == int(cursor.counts)
            and not (lease.needs_reset or lease.kept or lease.is_by_hand or self._pins or self._busy)
            and self.settings_dict["AUTOCOMMIT"]
        )

    def exchange_connection(self, cursor: LeasedCursorMixin) -> None:
        """Bury the connection and take another for `cursor`. Only if `can_exchange`.

        Raises:
            DatabaseUnavailable: no connection could be had.
        """
        lease, in_autocommit = self._lease, self.autocommit
        assert lease is not None
        self._busy += 1
        try:
            lease.cursors = 0
            lease.discard = True
            # First, since two would need room for two.
            self._give_back()
            try:
                taken = self._take()
                if not in_autocommit:
                    taken.connection.autocommit = False
                    self.autocommit = False
            except BaseException:
                if self.in_atomic_block:
                    # As after close(): the block can only fail.
                    self.closed_in_transaction = self.needs_rollback = True
                raise
            taken.opened_by = lease.opened_by
            cursor.move_to(taken.connection)
            self.prepare_loaders(cursor)
        finally:
            self._busy -= 1
