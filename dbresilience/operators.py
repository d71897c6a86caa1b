"""Orders of an operator: pause, resume, recycle; for this process, or by a file for all of this machine.

The file is in a folder that belongs to this user alone, and is named after the database. A process
looks at it when it acquires a connection, every quarter of a second at most, so that acquiring costs
a comparison more. A pause has an end, so one that was forgotten harms nobody for long.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic, perf_counter, sleep, time, time_ns
from typing import Protocol

from django.db import connections

from .hearing import Hearers
from .process import keep

LOOK_SECONDS = 0.25
"""How often a process looks for orders at most; so long it may take until all have heard one."""

LONGEST_PAUSE_SECONDS = 3600.0

logger = logging.getLogger("dbresilience.connections")


class OrdersUnusable(RuntimeError):
    """The folder of the orders cannot be trusted or used; the text says why."""


@dataclass(frozen=True, slots=True)
class Orders:
    """What is ordered for all processes of this machine.

    `paused_until` is by `time.time`, 0 for no pause, and `pause_seconds` is how long the pause was meant to
    last. `recycled` says which order to recycle was the last: any other value is a new one.
    """

    paused_until: float = 0.0
    pause_seconds: float = 0.0
    recycled: int = 0


class OrderFile:
    """The orders for one database, shared by this user's processes on this machine.

    Args:
        database: host, port, name and user.
        folder: where the file is; None means ``dbresilience-<uid>`` in the folder for temporary files.
    """

    def __init__(self, database: Sequence[str], folder: str | None = None) -> None:
        self.folder = Path(folder or Path(tempfile.gettempdir()) / f"dbresilience-{os.geteuid()}")
        digest = hashlib.sha256("\0".join(database).encode()).hexdigest()[:32]
        self.path = str(self.folder / f"{digest}.json")
        self.hearers = Hearers(str(self.folder / f"{digest}.heard"))

    def read(self) -> Orders:
        """Return what is ordered; nothing if there is no file.

        Raises:
            OrdersUnusable: others could have written it, or it makes no sense.
        """
        try:
            self._check(self.folder, stat.S_ISDIR)
            self._check(Path(self.path), stat.S_ISREG)
            given = json.loads(Path(self.path).read_bytes())
            return Orders(float(given["paused_until"]), float(given["pause_seconds"]), int(given["recycled"]))
        except FileNotFoundError:
            return Orders()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OrdersUnusable(f"The orders in {self.folder} cannot be read: {type(error).__name__}.") from error

    def pause(self, seconds: float) -> float:
        """Order a pause from now on; returns its end, by `time.time`."""
        until = time() + seconds
        with self._changing() as orders:
            self._write(replace(orders, paused_until=until, pause_seconds=seconds))
        return until

    def resume(self, *, ordered_until: float | None = None) -> bool:
        """End a pause; whether there was one.

        Args:
            ordered_until: what `pause` returned, to end that one only; None ends any.
        """
        with self._changing() as orders:
            if not orders.paused_until or ordered_until not in (None, orders.paused_until):
                return False
            self._write(replace(orders, paused_until=0.0, pause_seconds=0.0))
            return orders.paused_until > time()

    def recycle(self) -> None:
        """Order that every connection of now is given up."""
        with self._changing() as orders:
            self._write(replace(orders, recycled=time_ns()))

    def heard_by(self) -> int:
        """Return how many processes have heard the last order so far; an idle one does with its next request."""
        try:
            return self.hearers.count(os.stat(self.path).st_mtime_ns)
        except OSError:
            return 0

    def prepare_folder(self) -> None:
        """Make the folder if there is none.

        Raises:
            OrdersUnusable: it cannot be made, or others could write to it.
        """
        try:
            self.folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise OrdersUnusable(
                f"{self.folder} cannot be used: {error.strerror}. Set OPTIONS['resilience']['runtime_folder']."
            ) from error
        self._check(self.folder, stat.S_ISDIR)

    @contextmanager
    def _changing(self) -> Iterator[Orders]:
        """Read the orders to change them, while nobody else does.

        Raises:
            OrdersUnusable: the folder cannot be made, or others could write to it.
        """
        self.prepare_folder()
        try:
            held = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError as error:
            raise OrdersUnusable(
                f"{self.folder} cannot be used: {error.strerror}. Set OPTIONS['resilience']['runtime_folder']."
            ) from error
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            try:
                orders = self.read()
            except OrdersUnusable:
                orders = Orders()  # what makes no sense is written anew
            yield orders
        finally:
            os.close(held)

    def _write(self, orders: Orders) -> None:
        # A new file in its place: a reader never sees half of it, and its inode shows that it changed.
        descriptor, draft = tempfile.mkstemp(dir=self.folder, prefix="draft-")
        with os.fdopen(descriptor, "w") as file:
            json.dump(asdict(orders), file)
        self.hearers.forget()
        os.rename(draft, self.path)

    def _check(self, path: Path, is_kind: Callable[[int], bool]) -> None:
        """Refuse what another user could have put there."""
        status = path.lstat()
        if not is_kind(status.st_mode):
            raise OrdersUnusable(f"{path} is not what it should be: remove it.")
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise OrdersUnusable(
                f"{path} must belong to the user of the processes and be closed to all others (mode 700). "
                "Remove it, or set OPTIONS['resilience']['runtime_folder'] to another folder."
            )


class Obeying(Protocol):
    """Who carries the orders out in this process: the pool."""

    def pause(self, seconds: float) -> None: ...

    def resume(self) -> None: ...

    def recycle(self) -> None: ...


class OperatorOrders:
    """Looks for orders, and passes on what is new.

    While a pause lasts a thread goes on looking, because those who wait do not.

    Args:
        file: where the orders are.
        pool: is told.
    """

    def __init__(self, file: OrderFile, pool: Obeying) -> None:
        self.look_at = 0.0
        """When to look next, by `time.perf_counter`, which whoever acquires has read anyway."""
        self._file = file
        self._pool = pool
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] | None = None
        self._orders: Orders | None = None
        self._paused_until = 0.0
        self._warned = False

    def look(self) -> None:
        """Obey what is new; what was ordered before the first look is so only as far as it lasts still."""
        self.look_at = perf_counter() + LOOK_SECONDS
        try:
            status = os.stat(self._file.path)
        except OSError:
            seen = None
        else:
            seen = (status.st_mtime_ns, status.st_ino, status.st_size)
        if seen == self._seen and self._orders is not None:
            return
        with self._lock:
            if seen == self._seen and self._orders is not None:
                return
            self._seen = seen
            try:
                before, self._orders = self._orders, self._file.read() if seen is not None else Orders()
            except OrdersUnusable as error:
                before, self._orders = self._orders, self._orders or Orders()
                # Once, because whoever meddles could fill the disk with it.
                logger.log(logging.DEBUG if self._warned else logging.WARNING, "Orders are ignored: %s", error)
                self._warned = True
                return
            self._obey(before, self._orders)
            # Who begins after an order has nothing to obey, unless it is a pause that lasts.
            if seen is not None and (before is not None or monotonic() < self._paused_until):
                self._file.hearers.add(seen[0])

    def _obey(self, before: Orders | None, orders: Orders) -> None:
        now = monotonic()
        if before is None or orders.paused_until != before.paused_until:
            # From here on by the clock that nobody sets.
            left_seconds = min(orders.paused_until - time(), orders.pause_seconds, LONGEST_PAUSE_SECONDS)
            if left_seconds > 0:
                watched, self._paused_until = now < self._paused_until, now + left_seconds
                self._pool.pause(left_seconds)
                if not watched:
                    threading.Thread(target=self._watch, name="dbresilience-orders", daemon=True).start()
            elif now < self._paused_until:
                self._paused_until = 0.0
                self._pool.resume()
        if before is not None and orders.recycled not in (0, before.recycled):
            self._pool.recycle()

    def _watch(self) -> None:
        while monotonic() < self._paused_until:
            sleep(LOOK_SECONDS)
            self.look()


def is_at_work() -> bool:
    """Return whether this thread has a connection of any alias.

    It must get another one in a pause, too: the pause waits for the work that needs both.
    """
    return any(getattr(wrapper, "_lease", None) is not None for wrapper in connections.all(initialized_only=True))


keep(globals(), "Orders", "OrdersUnusable")
