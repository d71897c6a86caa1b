"""A streaming standby of a throwaway server: it follows, and takes over when it is promoted."""

from __future__ import annotations

import os

from tests.support.postgres import ThrowawayPostgres, wait_until


class Standby(ThrowawayPostgres):
    """`with Standby(primary) as standby:` runs a copy of `primary` that follows it."""

    def __init__(self, primary: ThrowawayPostgres, **options: str) -> None:
        super().__init__(**options)
        self._primary = primary

    def _create(self) -> None:
        data = self._server.data
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            self._server._let_system_user_reach(data)
        source = f"host=127.0.0.1 port={self._primary.port} user=postgres application_name=standby"
        self._server._run("pg_basebackup", "-D", str(data), "-d", source, "-X", "stream", "-c", "fast",
                          "--no-sync", "--write-recovery-conf", timeout_seconds=60)  # fmt: skip

    def __enter__(self) -> Standby:
        super().__enter__()
        wait_until(self.follows, what="streaming")
        return self

    def follows(self) -> bool:
        """Whether it receives from its primary."""
        return bool(self.execute("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'"))

    def wait_until_same(self) -> None:
        """Wait until it has everything that the primary has now."""
        at = self._primary.execute("SELECT pg_current_wal_lsn()")[0][0]
        wait_until(lambda: self.execute(f"SELECT pg_last_wal_replay_lsn() >= '{at}'")[0][0], what="the same state")

    def promote(self) -> None:
        """Let it take over; it accepts writes when this returns."""
        self.execute("SELECT pg_promote(wait => true, wait_seconds => 30)")
