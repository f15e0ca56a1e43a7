"""The key operators of one configuration, each with its resource curves."""

from dataclasses import dataclass

import numpy as np

from falcon_ray.knowledge.curves.resource_curve import CurveSubject, ResourceCurve, curves_over
from falcon_ray.knowledge.curves.shape import MIN_POINTS
from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.latency.estimates import LatencyEstimate
from falcon_ray.knowledge.latency.latencies import DeviceLatency, Latencies
from falcon_ray.knowledge.operators.key_operators import KeyOperator, key_operators
from falcon_ray.knowledge.operators.operator import N_DIMS, Decomposition, Family
from falcon_ray.report.estimate import ExpectedOperator, OperatorPart
from falcon_ray.space.configuration import Configuration, FloatArray

_CURVE_BATCHES = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])


def operator_part(
    decomposition: Decomposition,
    latencies: Latencies,
    configuration: Configuration,
    *,
    device: str,
    usd_per_hour: float,
) -> OperatorPart:
    """Where the time of a configuration goes, and what more of each resource does to it.

    Args:
        decomposition: The model.
        latencies: What predicts it.
        configuration: The point to look at.
        device: What it runs on.
        usd_per_hour: Its price; of another share of a GPU, or other cores, in proportion.

    Raises:
        UnknownDeviceError: Nothing is known about the device.
    """
    dtype = configuration.text("dtype", "float32")
    batch = configuration.count("batch_size", 1)
    point = _Point(
        predictor=latencies.on(device, dtype),
        threads=configuration.count("cpu_cores", 1),
        share=configuration.number("gpu_share", 1.0),
    )
    batches = np.unique(np.append(_CURVE_BATCHES, float(batch)))
    traffic = point.predictor.traffic_dtype
    calls = decomposition.calls(batches, dtype=traffic)
    predicted = point.predictor.predict(calls, threads=point.threads, share=point.share)
    index = int(np.searchsorted(batches, batch))
    found = key_operators(
        calls,
        predicted.operator_seconds,
        batch_index=index,
        total_seconds=float(np.exp(predicted.log_seconds[index])),
    )
    subjects = [
        CurveSubject(operator=each.name, device=device, dims=each.dims, dtype=dtype)
        for each in found.operators
    ]
    over_batches = curves_over(
        "batch_size",
        batches,
        _seconds(found.operators, predicted),
        subjects=subjects,
        usd_per_hour=usd_per_hour,
    )
    further: list[tuple[ResourceCurve, ...]] = []
    resource, values = point.measured_resource()
    if len(values) >= MIN_POINTS:
        one = decomposition.calls(np.array([float(batch)]), dtype=traffic)
        on_cpu = resource == "cpu_cores"
        settings = [
            point.predictor.predict(
                one, threads=int(each) if on_cpu else 0, share=1.0 if on_cpu else float(each)
            )
            for each in values
        ]
        further.append(
            curves_over(
                resource,
                values,
                np.concatenate([_seconds(found.operators, each) for each in settings], axis=1),
                subjects=subjects,
                work=np.full(len(values), float(batch)),
                usd_per_hour=usd_per_hour * values / (point.threads if on_cpu else point.share),
            )
        )
    return OperatorPart(
        point=f"{device} in {dtype} at batch {batch}",
        operators=tuple(
            ExpectedOperator(
                name=each.name,
                detail=describe_dims(each.family, each.dims),
                calls=each.calls,
                share=each.share,
                curves=tuple(group[i] for group in (over_batches, *further)),
            )
            for i, each in enumerate(found.operators)
        ),
        n_others=found.n_others,
        others_share=found.others_share,
        host_share=found.host_share,
        basis=predicted.basis,
    )


def describe_dims(family: Family, dims: tuple[int, ...]) -> str:
    """Canonical dimensions in few words, e.g. "128 x 3072 to 768"."""
    match family:
        case Family.LINEAR:
            rows, n_out, n_in = dims
            words = f"{rows} x {n_in} to {n_out}"
        case Family.BMM:
            batch, m, n, k = dims
            words = f"{batch} x {m}x{k} by {k}x{n}"
        case Family.ATTENTION:
            batch, heads, queries, keys, width = dims
            words = f"{batch} x {heads} heads of {queries}x{keys}x{width}"
        case Family.RECURRENT:
            batch, tokens, n_in, hidden, layers, *_ = dims
            words = f"{batch} x {tokens} tokens, {n_in} to {hidden}, {layers} layers"
        case Family.NORM | Family.SOFTMAX | Family.EMBEDDING:
            words = f"{dims[0]} x {dims[1]}"
        case _ if len(dims) == N_DIMS[Family.CONV_1X1]:
            batch, n_in, n_out, groups, kernel_h, kernel_w, out_h, out_w, stride = dims
            words = f"{batch} x {n_in} to {n_out} of {out_h}x{out_w} by {kernel_h}x{kernel_w}"
            words += f", {groups} groups" if groups > 1 else ""
            words += f", /{stride}" if stride > 1 else ""
        case _:
            words = f"{max(dims):,} elements"
    return words


@dataclass(frozen=True, slots=True)
class _Point:
    """A device and the setting that a configuration has on it."""

    predictor: DeviceLatency
    threads: int
    share: float

    def measured_resource(self) -> tuple[str, FloatArray]:
        """The resource beside the batch, and where its effect was measured, ascending."""
        on_gpu = self.predictor.device.kind is DeviceKind.GPU
        return ("gpu_share" if on_gpu else "cpu_cores"), self.predictor.measured_settings


def _seconds(operators: tuple[KeyOperator, ...], predicted: LatencyEstimate) -> FloatArray:
    """Seconds of each key operator at each batch size, shape (m, b)."""
    return np.stack(
        [
            sum(
                (predicted.operator_seconds[group][:, column] for group, column in each.positions),
                np.zeros(len(predicted.log_seconds)),
            )
            for each in operators
        ]
    )
