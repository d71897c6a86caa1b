"""Prometheus: the instruments as metrics of `prometheus_client`, in its own registry, added up over several processes.

With `PROMETHEUS_MULTIPROC_DIR` each process writes into files of that folder, and whoever is asked adds them up.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import prometheus_client
from django.core.exceptions import ImproperlyConfigured
from prometheus_client import REGISTRY, CollectorRegistry, Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.values import MutexValue, ValueClass

from . import reporting
from .instruments import BUCKETS, COUNTER, HISTOGRAM, INSTRUMENTS, MOMENT, Instrument
from .recording import Labels, record_with, recorder_named

FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class BatchHistogram(prometheus_client.Histogram):
    """A histogram that takes a second's durations at a tenth of the price of one after the other."""

    def observe_all(self, values: list[float]) -> None:
        """Observe each of them."""
        self._sum.inc(sum(values))
        for bucket, number in Counter(bisect_left(self._upper_bounds, value) for value in values).items():
            self._buckets[bucket].inc(number)


class PrometheusRecorder:
    """Makes a metric of each instrument (see `recording.Recorder`)."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._families = {instrument.name: _family(instrument, registry) for instrument in INSTRUMENTS}
        self._children: dict[tuple[str, Labels], Any] = {}
        # The library's own lock would stay locked in a child that is forked while another thread counts.
        self._lock = threading.RLock()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self._lock.acquire, after_in_parent=self._lock.release, after_in_child=self._lock.release
            )

    def add(self, instrument: Instrument, labels: Labels, amount: int) -> None:
        """Count."""
        with self._lock:
            self._child(instrument, labels).inc(amount)

    def observe(self, instrument: Instrument, labels: Labels, values: list[float]) -> None:
        """Put durations into a histogram."""
        with self._lock:
            self._child(instrument, labels).observe_all(values)

    def set(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Set a gauge."""
        with self._lock:
            self._child(instrument, labels).set(value)

    def _child(self, instrument: Instrument, labels: Labels) -> Any:
        child = self._children.get((instrument.name, labels))
        if child is None:
            child = self._children[instrument.name, labels] = self._families[instrument.name].labels(*labels)
        return child


def _family(instrument: Instrument, registry: CollectorRegistry) -> Any:
    about = (instrument.prometheus_name, f"{instrument.meaning}.", list(instrument.labels))
    if instrument.kind == COUNTER:
        return prometheus_client.Counter(*about, registry=registry)
    if instrument.kind == HISTOGRAM:
        return BatchHistogram(*about, buckets=BUCKETS, registry=registry)
    # What a process has ends with it; the last moment of something does not.
    mode: Literal["max", "livesum"] = "max" if instrument.kind == MOMENT else "livesum"
    return prometheus_client.Gauge(*about, registry=registry, multiprocess_mode=mode)


def shared_registry() -> CollectorRegistry:
    """Return what is to be shown: this process's metrics, or with `PROMETHEUS_MULTIPROC_DIR` those of all."""
    if ValueClass is MutexValue:
        return REGISTRY
    _forget_dead(Path(os.environ[FOLDER]))
    registry = CollectorRegistry()
    AllProcesses(registry)  # type: ignore[no-untyped-call]  # not typed
    return registry


class AllProcesses(MultiProcessCollector):
    """The library's, which fails where a process has just made its file and written nothing yet."""

    def collect(self) -> Iterable[Metric]:
        """Add up what the processes have written."""
        files = [str(file) for file in Path(self._path).glob("*.db") if _is_written(file)]
        return self.merge(files)  # type: ignore[no-untyped-call, no-any-return]  # not typed


def _is_written(file: Path) -> bool:
    try:
        return file.stat().st_size > 0
    except FileNotFoundError:  # another process has dropped it
        return False


def _forget_dead(folder: Path) -> None:
    """Drop the gauges of processes that were killed: not every server tells us, and they would count for ever."""
    for file in folder.glob("gauge_live*_*.db"):
        number = file.stem.rpartition("_")[2]
        if number.isdigit() and not _is_alive(int(number)):
            _mark_dead(int(number), folder)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _mark_dead(pid: int, folder: Path) -> None:
    with suppress(FileNotFoundError):  # another process does the same
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]  # not typed


def _mark_self_dead() -> None:
    _mark_dead(os.getpid(), Path(os.environ.get(FOLDER, "")))


def install() -> None:
    """Begin to record. Repeating it is harmless.

    Raises:
        ImproperlyConfigured: `PROMETHEUS_MULTIPROC_DIR` cannot be used.
    """
    if recorder_named("prometheus") is not None:
        return
    folder = os.environ.get(FOLDER)
    if folder is not None:
        if ValueClass is MutexValue:
            raise ImproperlyConfigured(f"{FOLDER} was set after prometheus_client was imported: set it before.")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ImproperlyConfigured(f"{FOLDER} is {folder!r}, which cannot be used as a folder: {error}") from error
        if not folder or not os.access(folder, os.W_OK):
            raise ImproperlyConfigured(f"{FOLDER} is {folder!r}: give a folder that can be written to, or unset it.")
        reporting.after_last_turn("metrics", _mark_self_dead)
    record_with("prometheus", PrometheusRecorder())
