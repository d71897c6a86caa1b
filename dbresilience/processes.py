"""Every process of this machine that uses one database: how each is now, and what all of them together do.

Read from the files that `history` writes, so it works for processes that hang, were killed or have ended, and it
asks neither them nor the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any

from .history_file import BREAKER, GAUGES, About, Sample
from .history_reading import HistoryFile, history_files
from .incarnations import is_there
from .intervals import NOTHING, Interval, between, together
from .operators import OrderFile
from .snapshot import PoolSnapshot

SILENT_SECONDS = 3.5
"""A process that has written nothing for so long is not well, or not any more."""
MINUTE_SECONDS = 60.0
MOST_GONE = 50
"""Of more processes that are gone, those that went first are forgotten before their hour is over."""
_UNTOUCHED_SECONDS = 10.0


class Process:
    """One process and its pool at one moment.

    Args:
        file: what it has written.
        now: the moment, by `time.time`.
        replaced: whether a later process has its id.
    """

    def __init__(self, file: HistoryFile, now: float, *, replaced: bool = False) -> None:
        self.file = file
        self._replaced = replaced
        self.about: About = file.about
        self.now = now
        self.newest: Sample | None = file.newest(now)

    @property
    def id(self) -> str:
        """Names it among all there ever were on this machine."""
        return self.file.path.stem.rpartition(".")[2]

    @cached_property
    def state(self) -> str:
        """``alive``; ``silent`` (it is there, but has written nothing for a while); ``ended`` or ``killed``."""
        if self.about.ended_at is not None:
            return "ended"
        if self._replaced:
            return "killed"
        if self.newest is not None and self.now - self.newest.at <= SILENT_SECONDS:
            return "alive"
        return "silent" if is_there(self.about.pid, self.about.incarnation) else "killed"

    @property
    def is_there(self) -> bool:
        """Whether it still exists."""
        return self.state in ("alive", "silent")

    @property
    def ended_at(self) -> float | None:
        """When it ended, or was last heard of; None while it is there."""
        if self.is_there:
            return None
        return self.about.ended_at or (self.newest.at if self.newest else self.about.started_at)

    @cached_property
    def pool(self) -> PoolSnapshot:
        """Its pool's numbers; all zero once it has ended."""
        if self.newest is None or not self.is_there:
            return PoolSnapshot(self.about.alias)
        gauges: dict[str, Any] = dict(zip(GAUGES, self.newest.gauges, strict=True))
        breaker = BREAKER[gauges.pop("breaker")]
        return PoolSnapshot(self.about.alias, breaker=breaker, **gauges)

    @property
    def trouble_since(self) -> float | None:
        """When it found the database away, or was paused; None if neither is so."""
        if self.newest is None or not self.is_there:
            return None
        return self.newest.trouble_since or None

    @cached_property
    def minute(self) -> Interval:
        """What it did in the last minute."""
        return self.since(self.now - MINUTE_SECONDS)

    def since(self, moment: float) -> Interval:
        """Return what it has done since `moment`."""
        if self.newest is None or self.newest.at < moment:
            return NOTHING
        before = self.file.newest(moment)
        if before is None and not self.about.from_zero:
            # What was counted before this file began did not happen now.
            before = self.file.oldest(moment, self.now)
        return between(before, self.newest, max(moment, self.about.started_at))


@dataclass(frozen=True)
class Machine:
    """All of them at one moment, by `time.time`; those that have ended last."""

    now: float
    processes: Sequence[Process]

    @cached_property
    def there(self) -> list[Process]:
        """Those that have not ended."""
        return [process for process in self.processes if process.is_there]

    @cached_property
    def pool(self) -> PoolSnapshot:
        """The sum of their pools, with the worst of their breakers."""
        pools = [process.pool for process in self.there]
        sums = {name: sum(getattr(pool, name) for pool in pools) for name in GAUGES if name != "breaker"}
        worst = max((BREAKER.index(pool.breaker) for pool in pools), default=0)
        return PoolSnapshot("", breaker=BREAKER[worst], **sums)

    @cached_property
    def minute(self) -> Interval:
        """What all did in the last minute, also those that have ended since."""
        return self.since(self.now - MINUTE_SECONDS)

    def since(self, moment: float) -> Interval:
        """Return what all have done since `moment`."""
        return together(process.since(moment) for process in self.processes)


def look(orders: OrderFile, alias: str, now: float | None = None) -> Machine:
    """Return all processes of this user on this machine that have used the database within the last hour.

    Args:
        orders: knows the folder and the database.
        alias: of a process that has several for this database, the one to tell of; other projects may have other names.
        now: the moment, by `time.time`; None means now.

    Raises:
        OrdersUnusable: the folder cannot be trusted or made.
    """
    orders.prepare_folder()
    moment = time() if now is None else now
    path = Path(orders.path)
    found = processes_of(_of_alias(_readable(history_files(path.parent, path.stem), moment), alias), moment)
    found.sort(key=lambda each: (not each.is_there, each.about.started_at))
    return Machine(moment, _without_oldest(found, moment))


def _of_alias(files: Sequence[HistoryFile], alias: str) -> list[HistoryFile]:
    with_it = {file.about.pid for file in files if file.about.alias == alias}
    return [file for file in files if file.about.alias == alias or file.about.pid not in with_it]


def processes_of(files: Sequence[HistoryFile], now: float) -> list[Process]:
    """Return the process of each file."""
    found = []
    for file in files:
        newest, pid = file.newest(now), file.about.pid
        last_heard = newest.at if newest else file.about.began_at
        replaced = any(other.about.pid == pid and other.about.began_at > last_heard for other in files)
        found.append(Process(file, now, replaced=replaced))
    return found


def _without_oldest(processes: list[Process], now: float) -> list[Process]:
    gone = sorted((each for each in processes if not each.is_there), key=lambda each: each.ended_at or 0, reverse=True)
    forgotten = [each for each in gone[MOST_GONE:] if now - (each.ended_at or 0) > MINUTE_SECONDS]
    for process in forgotten:
        with suppress(OSError):
            process.file.path.unlink()
    return [each for each in processes if each not in forgotten]


_untouched: dict[Path, tuple[int, HistoryFile]] = {}
"""Files that nobody writes to any more, with the moment of the last change: they are not read once a second."""


def _readable(paths: Iterable[Path], now: float) -> list[HistoryFile]:
    files = []
    for path in paths:
        with suppress(OSError, ValueError, TypeError):  # removed meanwhile, or of another version
            files.append(_read(path, now))
    for path in list(_untouched):
        if not path.exists():
            _untouched.pop(path, None)
    return files


def _read(path: Path, now: float) -> HistoryFile:
    changed = path.stat(follow_symlinks=False)
    known = _untouched.get(path)
    if known is not None and known[0] == changed.st_mtime_ns:
        return known[1]
    file = HistoryFile(path)
    if time() - changed.st_mtime > _UNTOUCHED_SECONDS:
        file.give_back(now)
        _untouched[path] = changed.st_mtime_ns, file
    return file
