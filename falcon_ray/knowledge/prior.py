"""What is expected of every candidate of a space before the first trial: means and error bars.

Rates and latencies per modelled metric as normal distributions of their natural logs, memory,
and the probability that it suffices; for a search as a mixture of experts. The prior knows what
the dimensions of a served torch model mean; it does not know prices or scores. Everything is
computed once per device, dtype, share and batch size, and then looked up, so that a million
candidates cost little more than a thousand.

Notation: n candidates.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.cell_times import CellTimes, cell_times, fill_with_average
from falcon_ray.knowledge.cells import Cells, Columns, batch_grid
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.memory import probability_of_fitting
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.knowledge.operator_times import operator_seconds
from falcon_ray.knowledge.operators.operator import Decomposition
from falcon_ray.knowledge.roofline import log_roofline_s
from falcon_ray.knowledge.serving import (
    BatchTimes,
    capacity_rps,
    floor_latency_ms,
    latency_at_rate_ms,
    saturation_rps,
)
from falcon_ray.space.configuration import ConfigurationSpace, FloatArray
from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload

QUEUEING_SD = 0.2
"""Assumed further sd of the log of what an SLO hangs on: a service time holds no queues."""
OFFSET_SD, OFFSET_SD_ON_ONE_DEVICE = 0.2, 0.25
"""Of what composed times of one model are off by on whatever device; where all candidates share a
device, what is wrong about that belongs to it too (sd .15 of it, beside what is calibrated)."""
LARGEST_OFFSET_SHARE = 0.64
"""Of the variance of the surest candidate: shapes and shares differ in any case."""
ROOFLINE_OFFSET_SD = 0.45
ROOFLINE_RESIDUAL_SD = 0.3
"""Uncalibrated rooflines are 20-70 % off, and not equally on every device and at every batch."""
SATURATION = Workload()
_LARGEST_LOG_SHARE = 10.0
"""Of memory, either way: beyond it nothing changes, and a limit may be infinite."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a deployment is held to."""

    slo: Slo | None
    workload: Workload

    @property
    def is_single_stream(self) -> bool:
        return self.workload.scenario is Scenario.SINGLE_STREAM


@dataclass(frozen=True, slots=True)
class Expectation:
    """One positive metric of n candidates: mean and sd of its natural log, shapes (n,)."""

    mean: FloatArray
    sd: FloatArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """What is expected of n candidates.

    Attributes:
        metrics: By the names of `Measurement`.
        memory_bytes: Of one replica, shape (n,).
        probability_fits: That this is within what the candidate allows, shape (n,).
        warnings: Where the knowledge is thin, one line each.
    """

    metrics: Mapping[str, Expectation]
    memory_bytes: FloatArray
    probability_fits: FloatArray
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The machine whose CPUs serve the candidates that name no GPU.

    Attributes:
        device: Name of the CPU in the profile; empty where no candidate runs on one.
        ram_bytes: What one replica may take at most.
    """

    device: str
    ram_bytes: float


def expected_metrics(
    space: ConfigurationSpace,
    decomposition: Decomposition,
    latencies: Latencies,
    *,
    host: Host,
    slo: Slo | None = None,
    workload: Workload = SATURATION,
) -> Prior:
    """The prior of every candidate of a space.

    Args:
        space: The n candidates.
        decomposition: The model that is served.
        latencies: What predicts the times of its batches.
        host: For candidates without `gpu_type`.
        slo: With one, `capacity_rps` and `floor_latency_ms` are expected as well.
        workload: Of a single stream, `single_stream_rps` is; the floor of a server at an offered
            rate is its latency at that rate.

    Raises:
        UnknownDeviceError: Nothing is known about any device that a candidate would run on.
        InputError: A candidate names no device, or a dtype of unknown width.
    """
    places = _Places(space, cpu=host.device)
    found = places.times(decomposition, latencies, host)
    asked = _Asked(slo, workload)
    spread = places.spread(found.sd, asked)
    metrics = {
        name: Expectation(mean, spread[name])
        for name, mean in places.log_metrics(found.log_seconds, asked).items()
    }
    memory, allowed = places.memory(found)
    return Prior(
        metrics=metrics,
        memory_bytes=memory,
        probability_fits=probability_of_fitting(memory, allowed),
        warnings=(*places.notes, *found.warnings),
    )


def expert_mixture(
    space: ConfigurationSpace,
    decomposition: Decomposition,
    latencies: Latencies,
    *,
    host: Host,
    slo: Slo | None = None,
    workload: Workload = SATURATION,
    note: Callable[[str], None] = lambda _: None,
) -> ExpertMixture:
    """The same of every candidate, as experts that a search weighs by its trials.

    "composition" expects what `expected_metrics` does, "roofline" what data sheets say. They are
    weighted by their precision at the median candidate, so that the roofline has a say where
    the composition stands on other devices' measurements. An expert that expects no differences
    takes prices, so the optimizer adds it.

    Args:
        space: The n candidates.
        decomposition: The model that is served.
        latencies: What predicts the times of its batches.
        host: For candidates without `gpu_type`.
        slo: With one, `capacity_rps` and `floor_latency_ms` are expected beside
            `saturation_rps`.
        workload: As in `expected_metrics`.
        note: Told where the knowledge is thin, one line each.

    Raises:
        UnknownDeviceError: Nothing is known about any device that a candidate would run on.
        InputError: A candidate names no device, or a dtype of unknown width.
    """
    places = _Places(space, cpu=host.device)
    found = places.times(decomposition, latencies, host)
    for line in (*places.notes, *found.warnings):
        note(line)
    asked = _Asked(slo, workload)
    sd = found.sd[places.group, places.batch]
    offset_sd = _offset_sd(found, least_sd=float(sd.min()))
    residual_sd = _without(found.sd, offset_sd)
    ideal_residual_sd = np.maximum(residual_sd, ROOFLINE_RESIDUAL_SD)
    ideal_sd = np.hypot(ROOFLINE_OFFSET_SD, ideal_residual_sd[places.group, places.batch])
    experts = (
        Expert(
            name="composition",
            weight=float(np.median(sd)) ** -2,
            metrics=places.expected(found.log_seconds, offset_sd, residual_sd, asked),
        ),
        Expert(
            name="roofline",
            weight=float(np.median(ideal_sd)) ** -2,
            metrics=places.expected(
                _ideal_log_seconds(found), ROOFLINE_OFFSET_SD, ideal_residual_sd, asked
            ),
        ),
    )
    memory, allowed = places.memory(found)
    with np.errstate(divide="ignore"):  # nothing may be allowed, and then nothing fits
        log_share = np.log(memory / allowed)
    return ExpertMixture(
        experts=experts,
        log_memory_share=np.clip(log_share, -_LARGEST_LOG_SHARE, _LARGEST_LOG_SHARE),
        operator_seconds={
            name: (each / found.batch_sizes)[places.group, places.batch] / places.replicas
            for name, each in operator_seconds(found).items()
        },
    )


class _Places:
    """Where each of a space's candidates stands in tables by cell and batch size."""

    def __init__(self, space: ConfigurationSpace, *, cpu: str) -> None:
        self._columns = Columns(space)
        self._cells = Cells(self._columns, cpu=cpu)
        self._batch_sizes = batch_grid(self._columns)
        self.group = self._cells.of_candidates()
        self.batch = self._columns.positions("batch_size", self._batch_sizes, default=1)
        self.replicas = self._columns.numbers("replicas", default=1.0)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the prior does not know about the space."""
        return tuple(
            f"the prior does not know what {name} does, and expects no effect"
            for name in self._columns.unknown
        )

    def times(self, decomposition: Decomposition, latencies: Latencies, host: Host) -> CellTimes:
        """Predict every cell."""
        return cell_times(
            self._cells, self._batch_sizes, decomposition, latencies, ram_bytes=host.ram_bytes
        )

    def log_metrics(self, log_seconds: FloatArray, asked: _Asked) -> dict[str, FloatArray]:
        """Logs of metrics by name, shapes (n,), from those of the seconds of batches, (c, b)."""
        times = BatchTimes(self._batch_sizes, np.exp(log_seconds))
        group, batch, replicas = self.group, self.batch, self.replicas
        rate = saturation_rps(times, group=group, batch=batch, replicas=replicas)
        metrics = {
            "service_time_ms": log_seconds[group, batch] + np.log(1e3),
            "saturation_rps": np.log(rate),
        }
        slo, offered_rps = asked.slo, asked.workload.offered_rps
        if slo is None and not asked.is_single_stream:
            return metrics
        wait_ms = self._columns.numbers("batch_wait_ms", default=0.0)
        floor = floor_latency_ms(times, group=group, batch=batch, batch_wait_ms=wait_ms)
        if asked.is_single_stream:
            metrics["single_stream_rps"] = np.log(1e3 / floor)
        if slo is not None:
            capacity = capacity_rps(times, slo, group=group, batch=batch, replicas=replicas)
            if offered_rps is not None:
                loaded = latency_at_rate_ms(
                    times, offered_rps, group=group, batch=batch, replicas=replicas
                )
                floor = np.maximum(floor, loaded)
            metrics |= {"capacity_rps": np.log(capacity), "floor_latency_ms": np.log(floor)}
        return metrics

    def spread(
        self, sd: FloatArray, asked: _Asked, *, queueing_sd: float = QUEUEING_SD
    ) -> dict[str, FloatArray]:
        """The sd of those logs by name, shapes (n,), from the sd of the times, (c, b)."""
        own = sd[self.group, self.batch]
        metrics = {"service_time_ms": own, "saturation_rps": own}
        # The floor is the latency of a lone request, but at a given rate that of full batches.
        lone = np.hypot(sd[self.group, 0], queueing_sd)
        if asked.is_single_stream:
            metrics["single_stream_rps"] = lone
        if asked.slo is not None:
            loaded = np.hypot(own, queueing_sd)
            metrics["capacity_rps"] = loaded
            metrics["floor_latency_ms"] = (
                lone if asked.workload.offered_rps is None else np.maximum(lone, loaded)
            )
        return metrics

    def expected(
        self, log_seconds: FloatArray, offset_sd: float, residual_sd: FloatArray, asked: _Asked
    ) -> dict[str, ExpectedMetric]:
        """What an expert on times expects of rates and floors.

        What queues add is half common to all candidates: the path to a replica is the same.
        """
        half_queueing_sd = QUEUEING_SD / np.sqrt(2)
        spread = self.spread(residual_sd, asked, queueing_sd=half_queueing_sd)
        means = self.log_metrics(log_seconds, asked)
        del means["service_time_ms"]  # no objective models it
        return {
            name: ExpectedMetric(
                mean=mean,
                offset_sd=offset_sd
                if name == "saturation_rps"
                else float(np.hypot(offset_sd, half_queueing_sd)),
                residual_sd=spread[name],
            )
            for name, mean in means.items()
        }

    def memory(self, found: CellTimes) -> tuple[FloatArray, FloatArray]:
        """Bytes that a replica needs, and those that it may take, shapes (n,)."""
        # The replicas of a CPU node share its memory.
        sharing = 1.0 if "gpu_type" in self._columns.dimensions else self.replicas
        allowed = np.minimum(
            found.limit_bytes[self.group] / sharing,
            2.0**30 * self._columns.numbers("gpu_memory_gib", default=np.inf),
        )
        return found.needed_bytes[self.group, self.batch], allowed


def _offset_sd(found: CellTimes, *, least_sd: float) -> float:
    """The sd of what all candidates are off by together."""
    devices = {each.device.name for each in found.predictions.values()}
    on_one = len(devices) == 1 and not found.strangers
    usual = OFFSET_SD_ON_ONE_DEVICE if on_one else OFFSET_SD
    left = np.sqrt(found.variance_left)  # trials of this model took the rest away
    return float(min(usual * left, np.sqrt(LARGEST_OFFSET_SHARE) * least_sd))


def _without(sd: FloatArray, offset_sd: float) -> FloatArray:
    """The sd of the rest, where an offset is part of the sd; shape of `sd`."""
    return np.sqrt(np.maximum(sd**2 - offset_sd**2, 0.0))


def _ideal_log_seconds(found: CellTimes) -> FloatArray:
    """Rooflines of all cells, shape (c, b)."""
    log_seconds = np.zeros_like(found.log_seconds)
    for cell, each in found.predictions.items():
        log_seconds[cell] = log_roofline_s(
            each.calls, each.device, dtype=each.dtype, part=each.part
        )
    fill_with_average(log_seconds, known=found.predictions.keys(), unknown=found.strangers)
    return log_seconds
