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
import stat
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import time, time_ns
from typing import Any, NamedTuple
from zlib import crc32

from .percentiles import BUCKETS

VERSION = 1
SUFFIX = ".history"
KEPT_SECONDS = 3600.0
"""How long the file of an ended process is kept."""

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

_NUMBERS = struct.Struct(f"<dd{len(GAUGES)}I{len(COUNTERS)}Q{len(DURATIONS) * BUCKETS}I")
_CHECKSUM = struct.Struct("<I")
_TEXT = struct.Struct("<QH")


class Sample(NamedTuple):
    """The numbers of one moment; `trouble_since` is when the database went away or was paused, 0 if it is there."""

    at: float
    trouble_since: float
    gauges: tuple[int, ...]
    counters: tuple[int, ...]
    buckets: tuple[int, ...]


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


_SAMPLE_BYTES = _CHECKSUM.size + _NUMBERS.size
_ABOUT = Ring(0, 2048, 1)
_SECONDS = Ring(_ABOUT.end, _SAMPLE_BYTES, 300)
_TENS = Ring(_SECONDS.end, _SAMPLE_BYTES, 360)
_EVENTS = Ring(_TENS.end, 512, 128)
_SLOW_QUERIES = Ring(_EVENTS.end, 2048, 32)
_SIZE = _SLOW_QUERIES.end

STEPS = {1: _SECONDS, 10: _TENS}
"""Seconds between two samples, and where those are."""


@dataclass(frozen=True, slots=True)
class About:
    """Whose history it is; moments are by `time.time`."""

    alias: str
    pid: int
    what: str
    started_at: float
    ended_at: float | None = None


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
        os.ftruncate(self._descriptor, _SIZE)
        self._write_about()

    @property
    def is_there(self) -> bool:
        """Whether the file has not been removed."""
        return os.fstat(self._descriptor).st_nlink > 0

    def add_sample(self, sample: Sample) -> None:
        """Write the numbers of this second, and those of its ten seconds, which keep the worst moment's gauges."""
        self._write(_SECONDS, int(sample.at), _packed(sample))
        tens, number = self._tens, int(sample.at // 10)
        if tens is not None and tens.at // 10 == number:
            worst = (
                max(pair) if name in _WORST else pair[1]
                for name, *pair in zip(GAUGES, tens.gauges, sample.gauges, strict=True)
            )
            sample = sample._replace(gauges=tuple(worst))
        self._tens = sample
        self._write(_TENS, number, _packed(sample))

    def add_event(self, event: Mapping[str, Any]) -> None:
        """Write what happened, in place of the oldest one."""
        self._events += 1
        self._write_text(_EVENTS, self._events, event)

    def add_slow_query(self, query: Mapping[str, Any]) -> None:
        """Write a slow query, in place of the oldest one."""
        self._slow_queries += 1
        self._write_text(_SLOW_QUERIES, self._slow_queries, query)

    def end(self) -> None:
        """Write that the process ends."""
        about = self._about
        self._about = About(about.alias, about.pid, about.what, about.started_at, time())
        self._write_about()

    def close(self) -> None:
        """Let go of the file, as a forked child does with its parent's."""
        os.close(self._descriptor)

    def _write_about(self) -> None:
        about = self._about
        fields = {name: getattr(about, name) for name in About.__slots__}
        self._write_text(_ABOUT, VERSION, fields)

    def _write_text(self, ring: Ring, number: int, fields: Mapping[str, Any]) -> None:
        data = json.dumps(fields, ensure_ascii=False).encode()
        if len(data) > ring.size - _CHECKSUM.size - _TEXT.size:
            raise ValueError(f"{len(data)} bytes are too many for a record of {ring.size}")
        self._write(ring, number, _TEXT.pack(number, len(data)) + data)

    def _write(self, ring: Ring, number: int, data: bytes) -> None:
        os.pwrite(self._descriptor, _CHECKSUM.pack(crc32(data)) + data, ring.offset_of(number))


def _packed(sample: Sample) -> bytes:
    return _NUMBERS.pack(sample.at, sample.trouble_since, *sample.gauges, *sample.counters, *sample.buckets)


class HistoryFile:
    """What a file held when it was read.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a history of this version, or others could have written it.
    """

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size != _SIZE:
                raise ValueError(f"{path} is no history of this version")
            self._data = memoryview(os.pread(descriptor, _SIZE, 0))
        finally:
            os.close(descriptor)
        self.path = path
        fields = self._text(_ABOUT, 0)
        if fields is None or fields[0] != VERSION:
            raise ValueError(f"{path} is no history of this version")
        self.about = About(**fields[1])

    def samples(self, step: int, since: float, until: float) -> Iterator[Sample]:
        """Return the samples between two moments, the oldest first.

        Args:
            step: seconds between two of them, 1 (the last five minutes) or 10 (the last hour).
        """
        ring = STEPS[step]
        last = int(until // step)
        for number in range(max(int(since // step), last - ring.records + 1), last + 1):
            sample = self._sample(ring, number, step)
            if sample is not None and since <= sample.at <= until:
                yield sample

    def newest(self, until: float) -> Sample | None:
        """Return the last sample that is not younger than `until`."""
        for step, ring in STEPS.items():
            last = int(until // step)
            for number in range(last, last - ring.records, -1):
                sample = self._sample(ring, number, step)
                if sample is not None and sample.at <= until:
                    return sample
        return None

    def events(self) -> list[dict[str, Any]]:
        """Return what happened, the oldest first."""
        return self._texts(_EVENTS)

    def slow_queries(self) -> list[dict[str, Any]]:
        """Return the slow queries, the oldest first."""
        return self._texts(_SLOW_QUERIES)

    def _sample(self, ring: Ring, number: int, step: int) -> Sample | None:
        offset = ring.offset_of(number)
        # Most of what is not there is found by its time, without the checksum.
        (at,) = struct.unpack_from("<d", self._data, offset + _CHECKSUM.size)
        if at // step != number or (data := self._record(ring, number)) is None:
            return None
        at, trouble_since, *numbers = _NUMBERS.unpack(data)
        gauges, counters = len(GAUGES), len(GAUGES) + len(COUNTERS)
        return Sample(
            at, trouble_since, tuple(numbers[:gauges]), tuple(numbers[gauges:counters]), tuple(numbers[counters:])
        )

    def _texts(self, ring: Ring) -> list[dict[str, Any]]:
        found = (self._text(ring, number) for number in range(ring.records))
        return [fields for _, fields in sorted((each for each in found if each), key=lambda each: each[0])]

    def _text(self, ring: Ring, number: int) -> tuple[int, dict[str, Any]] | None:
        offset = ring.offset_of(number) + _CHECKSUM.size
        number, length = _TEXT.unpack_from(self._data, offset)
        data = self._data[offset : offset + _TEXT.size + min(length, ring.size)]
        if not number or crc32(data) != _CHECKSUM.unpack_from(self._data, offset - _CHECKSUM.size)[0]:
            return None
        return number, json.loads(bytes(data[_TEXT.size :]))

    def _record(self, ring: Ring, number: int) -> memoryview | None:
        offset = ring.offset_of(number)
        data = self._data[offset + _CHECKSUM.size : offset + ring.size]
        return data if crc32(data) == _CHECKSUM.unpack_from(self._data, offset)[0] else None


def history_files(folder: Path, digest: str = "") -> list[Path]:
    """Return the files of one database, or of all; removes what nobody has written to for an hour."""
    kept = []
    for path in sorted(folder.glob(f"{digest}*{SUFFIX}")):
        with suppress(OSError):
            if time() - path.stat(follow_symlinks=False).st_mtime > KEPT_SECONDS:
                path.unlink()
            else:
                kept.append(path)
    return kept
