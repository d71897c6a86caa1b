"""The history of one pool of one process: a file of fixed size that any process of this user can read at any time.

It holds a sample for each of the last 300 seconds and for each of the last 360 times ten seconds, and the newest events
and slow queries. All numbers of a sample but the gauges count from the beginning of the process, so the difference of
two tells what came in between.

It is written with `pwrite` and not mapped: a mapped file kills the process when its disk is full. What was written
stays when the process is killed. Each record has a checksum, so one that is read while it is written is left out.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import time, time_ns
from typing import Any, NamedTuple
from zlib import crc32

from .percentiles import BUCKETS

VERSION = 2
SUFFIX = ".history"

GAUGES = ("max_size", "min_size", "size", "in_use", "idle", "waiting", "generation", "breaker")
_WORST = {"in_use", "waiting", "breaker"}
BREAKER = ("closed", "paused", "open")
"""By number, the worst last."""
COUNTERS = (
    "opened_total",
    "connect_failures_total",
    "server_full_total",
    "breaker_opened_total",
    "condemned_total",
    "timed_out_total",
    "failed_total",
    "refused_total",
    "too_slow_total",
    "overdue_total",
    "repeated_total",
    "given_up_total",
    "commits_unknown_total",
    "slow_queries_total",
)
DURATIONS = ("wait", "hold", "query")

NUMBERS = struct.Struct(f"<dd{len(GAUGES)}I{len(COUNTERS)}Q{len(DURATIONS) * BUCKETS}I")
WRAP = 2**32
"""Buckets are written modulo this number, which halves the file; see `intervals`."""
CHECKSUM = struct.Struct("<I")
TEXT = struct.Struct("<QH")


class Sample(NamedTuple):
    """The numbers of one moment; `trouble_since` is when the database went away or was paused, 0 if it is there."""

    at: float
    trouble_since: float
    gauges: tuple[int, ...]
    counters: tuple[int, ...]
    buckets: tuple[int, ...]
    """Each begins anew at `WRAP`."""


class Ring(NamedTuple):
    """One part of the file: so many records of so many bytes, from `offset` on."""

    offset: int
    size: int
    records: int

    @property
    def end(self) -> int:
        """Where the next part begins."""
        return self.offset + self.size * self.records

    def offset_of(self, number: int) -> int:
        """Return where the record of that number is, or was until a later one took its place."""
        return self.offset + self.size * (number % self.records)


_SAMPLE_BYTES = CHECKSUM.size + NUMBERS.size
ABOUT = Ring(0, 2048, 1)
SECONDS = Ring(ABOUT.end, _SAMPLE_BYTES, 300)
TENS = Ring(SECONDS.end, _SAMPLE_BYTES, 360)
EVENTS = Ring(TENS.end, 512, 128)
SLOW_QUERIES = Ring(EVENTS.end, 2048, 32)
SIZE = SLOW_QUERIES.end

STEPS = {1: SECONDS, 10: TENS}
"""Seconds between two samples, and where those are."""


@dataclass(frozen=True, slots=True)
class About:
    """Whose history it is; moments are by `time.time`.

    Attributes:
        alias: of the database.
        pid: of the process.
        what: its name for people.
        started_at: when the process began.
        ended_at: when it ended; None while it has not said so.
        incarnation: tells it from another process with the same pid; see `incarnations`.
        began_at: when the file was made, which is with the first use of the pool.
        from_zero: whether nothing was counted before the first sample; False where an earlier file was removed.
    """

    alias: str
    pid: int
    what: str
    started_at: float
    ended_at: float | None = None
    incarnation: str | None = None
    began_at: float = 0.0
    from_zero: bool = True


class HistoryWriter:
    """Writes the file of one pool.

    Args:
        folder: belongs to this user alone.
        digest: names the database.
        about: the process.

    Raises:
        OSError: the file cannot be made.
    """

    def __init__(self, folder: Path, digest: str, about: About) -> None:
        self.path = folder / f"{digest}.{about.pid}-{time_ns():x}{SUFFIX}"
        self._about = about
        self._events = self._slow_queries = 0
        self._tens: Sample | None = None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self.path, flags, 0o600)
        try:
            os.ftruncate(self._descriptor, SIZE)
            self._write_about()
        except BaseException:  # it is tried again each second: nothing may be left on a full disk
            self.close()
            self.path.unlink(missing_ok=True)
            raise

    @property
    def is_there(self) -> bool:
        """Whether the file has not been removed."""
        return os.fstat(self._descriptor).st_nlink > 0

    def add_sample(self, sample: Sample) -> None:
        """Write the numbers of this second, and those of its ten seconds, which keep the worst moment's gauges."""
        self._write(SECONDS, int(sample.at), _packed(sample))
        tens, number = self._tens, int(sample.at // 10)
        if tens is not None and tens.at // 10 == number:
            worst = (
                max(pair) if name in _WORST else pair[1]
                for name, *pair in zip(GAUGES, tens.gauges, sample.gauges, strict=True)
            )
            sample = sample._replace(gauges=tuple(worst))
        self._tens = sample
        self._write(TENS, number, _packed(sample))

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Write what happened, in place of the oldest one."""
        self._events += 1
        self._write_text(EVENTS, self._events, event)

    def add_slow_query(self, query: Mapping[str, Any]) -> None:
        """Write a slow query, in place of the oldest one."""
        self._slow_queries += 1
        self._write_text(SLOW_QUERIES, self._slow_queries, query)

    def end(self) -> None:
        """Write that the process ends."""
        self._about = replace(self._about, ended_at=time())
        self._write_about()

    def close(self) -> None:
        """Let go of the file, as a forked child does with its parent's."""
        os.close(self._descriptor)

    def _write_about(self) -> None:
        self._write_text(ABOUT, VERSION, asdict(self._about))

    def _write_text(self, ring: Ring, number: int, fields: Mapping[str, Any]) -> None:
        data = json.dumps(fields, ensure_ascii=False).encode()
        if len(data) > ring.size - CHECKSUM.size - TEXT.size:
            raise ValueError(f"{len(data)} bytes are too many for a record of {ring.size}")
        self._write(ring, number, TEXT.pack(number, len(data)) + data)

    def _write(self, ring: Ring, number: int, data: bytes) -> None:
        os.pwrite(self._descriptor, CHECKSUM.pack(crc32(data)) + data, ring.offset_of(number))


def _packed(sample: Sample) -> bytes:
    buckets = [count % WRAP for count in sample.buckets]
    return NUMBERS.pack(sample.at, sample.trouble_since, *sample.gauges, *sample.counters, *buckets)
