import numpy as np
import pyarrow as pa
import pytest

from falcon_ray.errors import UnknownDeviceError
from falcon_ray.knowledge.constants import ANY_DEVICE
from falcon_ray.knowledge.device import Device
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.operators.operator import Decomposition, Family, Operator
from falcon_ray.knowledge.profile.decompositions import decomposition_rows, model_key
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import MODELS, OPERATORS
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import FloatArray
from tests.unit.knowledge.known import (
    CPU,
    LAUNCH_S,
    RESIDUAL_SD,
    constants,
    one_layer,
    one_layer_s,
    profile,
)

CATALOGUE = Catalogue.packaged()
BATCHES = np.array([1.0, 8.0])


def measured_layers(device: str, *, factor: float) -> Profile:
    """Linear layers near `one_layer` that took so many times their ideal time."""
    facts = Device.of_gpu(CATALOGUE.gpu(device))
    rows = [
        {
            "op": "linear",
            "family": "linear",
            "dims": [batch, width, width],
            "dtype": "float32",
            "device": device,
            "threads": 0,
            "share": 1.0,
            "mode": "eager",
            "environment": "made up",
            "latency_us": 1e6
            * factor
            * max(
                2.0 * batch * width**2 / facts.peak("float32"),
                4.0 * width**2 / facts.bandwidth_bytes_per_s,
            ),
            "relative_sd": 0.01,
            "n": 9,
            "flops": 2.0 * batch * width**2,
            "bytes": 4.0 * (width**2 + 2 * batch * width),
            "source": "made up",
        }
        for batch in (1, 4, 16, 64)
        for width in (500, 900, 1100, 2000)
    ]
    return Profile.of_tables({"operators": pa.Table.from_pylist(rows, schema=OPERATORS)})


def predicted(
    knowledge: Profile, device: str, *, threads: int = 0, share: float = 1.0
) -> tuple[FloatArray, FloatArray]:
    predictor = Latencies(knowledge, CATALOGUE).on(device, "float32")
    found = predictor.predict(one_layer().calls(BATCHES), threads=threads, share=share)
    return np.exp(found.log_seconds), found.sd


def test_constants_of_the_device_give_the_time_of_a_model() -> None:
    seconds, sd = predicted(profile(constants(threads=1)), CPU.name, threads=1)
    assert seconds == pytest.approx([one_layer_s(1), one_layer_s(8)])
    assert sd == pytest.approx([RESIDUAL_SD, RESIDUAL_SD])


def test_between_numbers_of_threads_that_were_measured_time_is_log_linear() -> None:
    known = profile(constants(threads=1), constants(threads=4, factor=0.25))
    seconds, sd = predicted(known, CPU.name, threads=2)
    # Halfway in log2 between t and t / 4.
    assert seconds == pytest.approx([one_layer_s(1) / 2, one_layer_s(8) / 2])
    assert (sd > RESIDUAL_SD).all()


def test_beyond_the_threads_that_were_measured_the_error_grows() -> None:
    known = profile(constants(threads=1), constants(threads=2, factor=0.5))
    _, near = predicted(known, CPU.name, threads=4)
    _, far = predicted(known, CPU.name, threads=16)
    assert (far > near).all()
    assert (near > RESIDUAL_SD).all()


def test_more_threads_than_the_one_number_measured_are_assumed_to_help() -> None:
    one, _ = predicted(profile(constants(threads=1)), CPU.name, threads=1)
    two, sd = predicted(profile(constants(threads=1)), CPU.name, threads=2)
    assert (two < one).all()
    assert (sd > RESIDUAL_SD).all()


def test_a_gpu_that_nobody_measured_takes_pooled_constants_and_its_own_facts() -> None:
    known = profile(constants(ANY_DEVICE, threads=0), devices=())
    seconds, _ = predicted(known, "L4")
    device = Device.of_gpu(CATALOGUE.gpu("L4"))
    predictor = Latencies(known, CATALOGUE).on("L4", "float32")
    (warning,) = predictor.predict(one_layer().calls(BATCHES)).warnings
    assert warning.startswith("nobody measured L4 in float32; constants of other devices stand in")
    assert seconds == pytest.approx([one_layer_s(1, device=device), one_layer_s(8, device=device)])


def test_half_a_gpu_takes_twice_as_long_but_for_launches_and_is_less_sure() -> None:
    known = profile(constants("L4", threads=0), devices=())
    whole, whole_sd = predicted(known, "L4")
    half, half_sd = predicted(known, "L4", share=0.5)
    assert half - LAUNCH_S == pytest.approx(2 * (whole - LAUNCH_S))
    assert (half_sd > whole_sd).all()


@pytest.mark.parametrize(
    ("known", "device", "problem"),
    [
        (Profile.empty(), "some cpu", "nothing is known about the device 'some cpu'"),
        (Profile.empty(), "L4", "nothing is known about L4 in float32"),
        (profile(), CPU.name, f"nothing is known about {CPU.name} in float32"),
    ],
)
def test_without_facts_or_constants_nothing_is_predicted(
    known: Profile, device: str, problem: str
) -> None:
    with pytest.raises(UnknownDeviceError, match=problem) as caught:
        predicted(known, device)
    assert "falcon-ray profile" in str(caught.value)


def test_another_dtype_stands_in_for_one_that_nobody_measured() -> None:
    predictor = Latencies(profile(constants(threads=1)), CATALOGUE).on(CPU.name, "bfloat16")
    calls = one_layer().calls(BATCHES, dtype=predictor.traffic_dtype)
    found = predictor.predict(calls, threads=1)
    # No gain is expected of a dtype that nobody measured on a CPU, and a very wide error.
    assert np.exp(found.log_seconds) == pytest.approx([one_layer_s(1), one_layer_s(8)])
    assert found.sd == pytest.approx(np.hypot(RESIDUAL_SD, 0.8))
    assert found.warnings == ("nobody measured known cpu in bfloat16; float32 stands in",)


def test_shapes_of_other_gpus_are_borrowed_where_nobody_measured_this_one() -> None:
    constant = constants(ANY_DEVICE, threads=0)
    lent = measured_layers("T4", factor=2.0)
    known = profile(constant, devices=()).merged(lent)
    predictor = Latencies(known, CATALOGUE).on("L4", "float32")
    found = predictor.predict(one_layer().calls(BATCHES))
    assert found.basis.startswith("shapes of other devices and constants of other devices")
    own = Latencies(known, CATALOGUE).on("T4", "float32").predict(one_layer().calls(BATCHES))
    assert own.basis == "profiled shapes"
    assert own.warnings == ()
    assert "nobody measured L4" in found.warnings[-1]


def test_a_batch_that_a_trial_measured_shifts_predictions_and_makes_no_setting_of_its_own() -> None:
    known = profile(constants(threads=1), constants(threads=4, factor=0.25))
    at_two, _ = predicted(known, CPU.name, threads=2)
    taught = known.merged(served(one_layer_s(8) / 2 * 1.5, threads=2))
    latencies = Latencies(taught, CATALOGUE)
    found = latencies.on(CPU.name, "float32").predict(one_layer().calls(BATCHES), threads=2)
    assert np.exp(found.log_seconds) == pytest.approx(at_two)
    offset = latencies.served(CPU.name, model_key(one_layer()))
    # The trial took 1.5 times as long as interpolated; 0.13 / 0.14 of that is believed.
    assert offset.log_factor == pytest.approx(np.log(1.5) * 0.13 / 0.14)


def served(seconds: float, *, threads: int) -> Profile:
    """A trial's batch of eight of `one_layer`."""
    row = {
        "model": model_key(one_layer()),
        "batch_size": 8,
        "dtype": "float32",
        "device": CPU.name,
        "threads": threads,
        "share": 1.0,
        "mode": "served",
        "environment": "made up",
        "latency_us": 1e6 * seconds,
        "relative_sd": 0.02,
        "n": 9,
        "peak_memory_bytes": None,
        "source": "own",
    }
    tables = {
        "models": pa.Table.from_pylist([row], schema=MODELS),
        "decompositions": decomposition_rows(one_layer()),
    }
    return Profile.of_tables(tables)


def test_a_family_without_constants_takes_ideal_time_with_a_wide_error() -> None:
    attention = Operator(
        name="scaled_dot_product_attention",
        family=Family.ATTENTION,
        dims=(2, 8, 64, 64, 64),
        flops=1e11,
        bytes_read=1e6,
    )
    model = Decomposition(
        model="attends",
        batch_sizes=(2, 4),
        low=(attention,),
        high=(attention,),
        parameter_bytes=0,
        activation_bytes=(0, 0),
    )
    predictor = Latencies(profile(constants(threads=1)), CATALOGUE).on(CPU.name, "float32")
    found = predictor.predict(model.calls(np.array([1.0])), threads=1)
    # 1e11 FLOPs at 1e11 FLOP/s; the two millionths of traffic and launch are nothing beside.
    assert np.exp(found.log_seconds) == pytest.approx([1.0], rel=1e-3)
    assert found.sd[0] == pytest.approx(np.hypot(1.0, RESIDUAL_SD), rel=1e-2)
    assert found.warnings == (
        "nobody measured these operators there: scaled_dot_product_attention",
    )


def test_a_trial_in_a_dtype_that_nobody_profiled_teaches_nothing_of_others() -> None:
    known = profile(constants(threads=1))
    row = served(one_layer_s(8) * 5, threads=1).models.to_pylist()[0] | {"dtype": "bfloat16"}
    tables = {
        "models": pa.Table.from_pylist([row], schema=MODELS),
        "decompositions": decomposition_rows(one_layer()),
    }
    latencies = Latencies(known.merged(Profile.of_tables(tables)), CATALOGUE)
    assert latencies.served(CPU.name, model_key(one_layer())).log_factor == 0.0


def test_operators_without_a_rule_widen_the_error_by_their_share() -> None:
    unruled = Operator(name="svdvals", family=Family.OTHER, dims=(10, 10), bytes_read=1e8)
    model = Decomposition(
        model="odd",
        batch_sizes=(2, 4),
        low=(unruled,),
        high=(unruled,),
        parameter_bytes=0,
        activation_bytes=(0, 0),
    )
    predictor = Latencies(profile(constants(threads=1)), CATALOGUE).on(CPU.name, "float32")
    found = predictor.predict(model.calls(np.array([1.0])), threads=1)
    assert found.sd[0] > 1.5  # bytes are a lower bound, whatever else the fit believes
