"""Reads the files of `history_file`, while they are written or when their process is gone."""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any
from zlib import crc32

from .history_file import (
    ABOUT,
    CHECKSUM,
    COUNTERS,
    EVENTS,
    GAUGES,
    NUMBERS,
    SIZE,
    SLOW_QUERIES,
    STEPS,
    SUFFIX,
    TEXT,
    VERSION,
    About,
    Ring,
    Sample,
)

KEPT_SECONDS = 3600.0
"""How long the file of an ended process is kept."""


class HistoryFile:
    """What a file held when it was read.

    Args:
        path: where it is.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a history of this version, or others could have written it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._data: memoryview | None = _read(path)
        self._last: Sample | None = None
        fields = self._text(ABOUT, 0)
        if fields is None or fields[0] != VERSION:
            raise ValueError(f"{path} is no history of this version")
        self.about = About(**fields[1])

    def give_back(self, now: float) -> None:
        """Keep the last sample and the texts in memory, and read the rest again when it is asked for."""
        self._last = self.newest(now)
        _ = self.events, self.slow_queries
        self._data = None

    def samples(self, step: int, since: float, until: float) -> Iterator[Sample]:
        """Return the samples between two moments, the oldest first.

        Args:
            step: seconds between two of them, 1 (the last five minutes) or 10 (the last hour).
        """
        ring, data = STEPS[step], self._bytes()
        last = int(until // step)
        for number in range(max(int(since // step), last - ring.records + 1), last + 1):
            sample = self._sample(data, ring, number, step)
            if sample is not None and since <= sample.at <= until:
                yield sample

    def newest(self, until: float) -> Sample | None:
        """Return the last sample that is not younger than `until`."""
        if self._last is not None and self._last.at <= until:
            return self._last
        data = self._bytes()
        for step, ring in STEPS.items():
            last = int(until // step)
            for number in range(last, last - ring.records, -1):
                sample = self._sample(data, ring, number, step)
                if sample is not None and sample.at <= until:
                    return sample
        return None

    def oldest(self, since: float, until: float) -> Sample | None:
        """Return the first sample between two moments."""
        first = (next(self.samples(step, since, until), None) for step in STEPS)
        return min((sample for sample in first if sample is not None), key=lambda sample: sample.at, default=None)

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened, the oldest first."""
        return self._texts(EVENTS)

    @cached_property
    def slow_queries(self) -> list[dict[str, Any]]:
        """The slow queries, the oldest first."""
        return self._texts(SLOW_QUERIES)

    def _bytes(self) -> memoryview:
        if self._data is not None:
            return self._data
        try:
            return _read(self.path)
        except (OSError, ValueError):  # removed meanwhile
            return memoryview(bytes(SIZE))

    def _sample(self, data: memoryview, ring: Ring, number: int, step: int) -> Sample | None:
        offset = ring.offset_of(number)
        # Most of what is not there is found by its time, without the checksum.
        (at,) = struct.unpack_from("<d", data, offset + CHECKSUM.size)
        if at // step != number or (record := _record(data, ring, number)) is None:
            return None
        at, trouble_since, *numbers = NUMBERS.unpack(record)
        gauges, counters = len(GAUGES), len(GAUGES) + len(COUNTERS)
        return Sample(
            at, trouble_since, tuple(numbers[:gauges]), tuple(numbers[gauges:counters]), tuple(numbers[counters:])
        )

    def _texts(self, ring: Ring) -> list[dict[str, Any]]:
        found = (self._text(ring, number) for number in range(ring.records))
        return [fields for _, fields in sorted((each for each in found if each), key=lambda each: each[0])]

    def _text(self, ring: Ring, number: int) -> tuple[int, dict[str, Any]] | None:
        data = self._bytes()
        offset = ring.offset_of(number) + CHECKSUM.size
        number, length = TEXT.unpack_from(data, offset)
        text = data[offset : offset + TEXT.size + min(length, ring.size)]
        if not number or crc32(text) != CHECKSUM.unpack_from(data, offset - CHECKSUM.size)[0]:
            return None
        return number, json.loads(bytes(text[TEXT.size :]))


def _read(path: Path) -> memoryview:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size != SIZE:
            raise ValueError(f"{path} is no history of this version")
        return memoryview(os.pread(descriptor, SIZE, 0))
    finally:
        os.close(descriptor)


def _record(data: memoryview, ring: Ring, number: int) -> memoryview | None:
    offset = ring.offset_of(number)
    record = data[offset + CHECKSUM.size : offset + ring.size]
    return record if crc32(record) == CHECKSUM.unpack_from(data, offset)[0] else None


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
