"""OpenTelemetry: the instruments as those of its metrics API, for whatever provider the application has set up."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter

from . import instruments
from .instruments import BUCKETS, COUNTER, GAUGE, HISTOGRAM, INSTRUMENTS, LABELS, SYSTEM, Instrument
from .recording import Labels, record_with, recorder_named


class OpenTelemetryRecorder:
    """Makes an instrument of each (see `recording.Recorder`); gauges are told when the provider asks for them.

    Args:
        version: of this package.
        provider: whose meter to use; the application's own if there is none.
    """

    def __init__(self, version: str, provider: MeterProvider | None = None) -> None:
        meter = get_meter("dbresilience", version, meter_provider=provider)
        self._values: dict[str, dict[Labels, float]] = {}
        self._made: dict[str, Any] = {}
        for instrument in INSTRUMENTS:
            about = {"unit": instrument.unit, "description": f"{instrument.meaning}."}
            if instrument.kind == COUNTER:
                self._made[instrument.name] = meter.create_counter(instrument.name, **about)
            elif instrument.kind == HISTOGRAM:
                self._made[instrument.name] = meter.create_histogram(
                    instrument.name, explicit_bucket_boundaries_advisory=BUCKETS, **about
                )
            else:
                values = self._values[instrument.name] = {}
                create = (
                    meter.create_observable_up_down_counter
                    if instrument.kind == GAUGE
                    else meter.create_observable_gauge
                )
                create(instrument.name, [_telling(instrument, values)], **about)
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forget_values)

    def add(self, instrument: Instrument, labels: Labels, amount: int) -> None:
        """Count."""
        self._made[instrument.name].add(amount, attributes_of(instrument, labels))

    def observe(self, instrument: Instrument, labels: Labels, values: list[float]) -> None:
        """Put durations into a histogram."""
        record, attributes = self._made[instrument.name].record, attributes_of(instrument, labels)
        for value in values:
            record(value, attributes)

    def set(self, instrument: Instrument, labels: Labels, value: float) -> None:
        """Set a gauge."""
        self._values[instrument.name][labels] = value

    def _forget_values(self) -> None:
        for values in self._values.values():
            values.clear()  # what the parent has is the parent's


def _telling(instrument: Instrument, values: dict[Labels, float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def tell(options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(value, attributes_of(instrument, labels)) for labels, value in list(values.items())]

    return tell


def attributes_of(instrument: Instrument, labels: Labels) -> dict[str, str | int]:
    """Return labels as OpenTelemetry has them; one that is empty is left out."""
    attributes: dict[str, str | int] = {
        LABELS[label][0]: int(value) if label == "status" else value
        for label, value in zip(instrument.labels, labels, strict=True)
        if value
    }
    if instrument.name == instruments.DURATION.name:
        attributes[SYSTEM[0]] = SYSTEM[1]
    return attributes


def install(version: str) -> None:
    """Begin to record. Repeating it is harmless."""
    if recorder_named("opentelemetry") is None:
        record_with("opentelemetry", OpenTelemetryRecorder(version))
