import json
from collections.abc import Mapping

import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.runtime.emulated.times import (
    BatchCosts,
    EmulatedTimes,
    TimedBatch,
    predicted_times,
    read_batches,
    tabled_times,
)
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.dimension import Value
from tests.unit.knowledge.known import LAUNCH_S, constants, one_layer, one_layer_s, profile

T4 = Device(
    name="T4",
    kind=DeviceKind.GPU,
    peak_flops_per_s={"float32": 1e11},
    bandwidth_bytes_per_s=1e10,
    memory_bytes=16 * 2.0**30,
    units=40,
    source="made up",
)
SPACE = ConfigurationSpace.of(
    {"gpu_type": ["T4"], "gpu_share": [0.5, 1.0], "batch_size": [1, 4], "dtype": ["float32"]}
)
COSTS = BatchCosts(
    gpu_type="T4",
    dtype="float32",
    gpu_share=1.0,
    gpu_memory_gib=16.0,
    batch_sizes=(2, 4, 8),
    seconds=(0.02, 0.03, 0.05),
    host_s=0.01,
    memory_gib=(1.0, 2.0, 4.0),
)
TABLE = "gpu_type,dtype,batch_size,latency_ms\nT4,float32,8,50\nT4,float32,1,8\nL4,float16,1,3\n"


def on(**values: Value) -> Configuration:
    return Configuration({"gpu_type": "T4", "dtype": "float32", **values})


def latencies() -> Latencies:
    return Latencies(profile(constants(T4.name, threads=0), devices=[T4]), Catalogue.packaged())


@pytest.mark.parametrize(
    ("batch_size", "seconds"),
    [
        (1, 0.02),  # as of the smallest
        (2, 0.02),
        (3, 0.025),  # half-way between 0.02 and 0.03
        (6, 0.04),
        (8, 0.05),
        (12, 0.07),  # as from 4 to 8: 0.005 s a request
    ],
)
def test_times_are_affine_between_batch_sizes(batch_size: int, seconds: float) -> None:
    assert COSTS.seconds_at(batch_size, share=1.0) == pytest.approx(seconds)


def test_needs_are_affine_between_batch_sizes() -> None:
    assert COSTS.memory_gib_at(6) == pytest.approx(3.0)
    assert COSTS.memory_gib_at(16) == pytest.approx(8.0)  # 0.5 GiB a request


def test_a_share_slows_everything_but_the_launches() -> None:
    # 0.02 s of the 0.03 s go inversely with the share: 0.04 + 0.01.
    assert COSTS.seconds_at(4, share=0.5) == pytest.approx(0.05)


def test_one_known_batch_size_is_scaled_beyond_itself() -> None:
    single = BatchCosts(
        gpu_type="T4",
        dtype="float32",
        gpu_share=1.0,
        gpu_memory_gib=16.0,
        batch_sizes=(4,),
        seconds=(0.03,),
    )
    assert single.seconds_at(8, share=1.0) == pytest.approx(0.06)
    assert single.memory_gib_at(8) is None


def test_the_share_that_is_known_is_preferred() -> None:
    half = BatchCosts(
        gpu_type="T4",
        dtype="float32",
        gpu_share=0.5,
        gpu_memory_gib=16.0,
        batch_sizes=(4,),
        seconds=(0.031,),
    )
    times = EmulatedTimes((COSTS, half), "made up")
    assert times.of(on(gpu_share=0.5)) is half
    assert times.of(on(gpu_share=0.25)) is half
    assert times.of(on()) is COSTS


def test_what_the_knowledge_expects_is_what_is_emulated() -> None:
    times = predicted_times(SPACE, None, one_layer(), latencies())
    costs = times.of(on(gpu_share=1.0))
    assert costs.batch_sizes == (1, 2, 4)
    for batch_size, seconds in zip(costs.batch_sizes, costs.seconds, strict=True):
        assert seconds == pytest.approx(one_layer_s(batch_size, device=T4))
    assert costs.gpu_memory_gib == 16.0
    # What a GPU process takes, 4 MB of weights, and 8 kB of activations a request.
    assert costs.memory_gib is not None
    assert costs.memory_gib[-1] == pytest.approx(0.55 + (4e6 + 4 * 8e3) / 2**30)


def test_a_share_that_nobody_measured_slows_as_the_knowledge_says() -> None:
    half = predicted_times(SPACE, None, one_layer(), latencies()).of(on(gpu_share=0.5))
    whole = one_layer_s(4, device=T4)
    assert half.seconds_at(4, share=0.5) == pytest.approx(2 * (whole - LAUNCH_S) + LAUNCH_S)
    assert half.host_s == pytest.approx(LAUNCH_S)


def test_a_baseline_outside_the_space_has_times() -> None:
    baseline = on(gpu_share=0.25, batch_size=16)
    times = predicted_times(SPACE, baseline, one_layer(), latencies())
    assert times.of(baseline).gpu_share == 0.25
    assert times.of(baseline).batch_sizes[-1] == 16


def test_times_outlive_the_journal() -> None:
    times = predicted_times(SPACE, None, one_layer(), latencies())
    kept = json.loads(json.dumps(times.to_json()))
    assert EmulatedTimes.from_json(kept) == times


@pytest.mark.parametrize("record", [{}, {"costs": [{"gpu_type": "T4"}], "source": "x"}])
def test_a_record_of_something_else_is_refused(record: Mapping[str, object]) -> None:
    with pytest.raises(InputError, match="no record of emulated times"):
        EmulatedTimes.from_json(record)


def test_a_space_without_gpus_cannot_be_emulated() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1, 2]})
    with pytest.raises(InputError, match="only GPUs are emulated"):
        predicted_times(space, None, one_layer(), latencies())


def test_a_gpu_that_nobody_knows_anything_of_cannot_be_emulated() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4", "Z9"], "batch_size": [1]})
    with pytest.raises(InputError, match="nothing says how long Z9 takes in float32"):
        predicted_times(space, None, one_layer(), latencies())


def test_several_gpus_of_one_replica_cannot_be_emulated() -> None:
    with pytest.raises(InputError, match="n_gpus 2 cannot be emulated"):
        EmulatedTimes((COSTS,), "made up").of(on(n_gpus=2))


def test_a_table_of_the_users_stands_in_for_the_knowledge() -> None:
    times = tabled_times(read_batches(TABLE, "mine.csv"), one_layer(), source="given by mine.csv")
    costs = times.of(on())
    assert (costs.batch_sizes, costs.seconds) == ((1, 8), (0.008, 0.05))
    assert costs.gpu_memory_gib == Catalogue.packaged().gpu("T4").memory_gib
    assert costs.memory_gib_at(8) == pytest.approx(0.55 + (4e6 + 8 * 8e3) / 2**30)
    # Nobody said what launches take, so all of it goes inversely with the share.
    assert costs.seconds_at(8, share=0.5) == pytest.approx(0.1)


def test_a_table_without_a_model_holds_no_memory_limit() -> None:
    times = tabled_times(
        [TimedBatch(gpu_type="T4", dtype="float32", batch_size=1, latency_ms=8)],
        None,
        source="mine",
    )
    assert times.of(on()).memory_gib is None


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("T4,float32,0,5", "must be positive, got 0 and 5"),
        ("T4,float32,1,-5", "must be positive, got 1 and -5"),
        ("T4,float31,1,5", "dtype 'float31' has no known width"),
        ("T4,float32,one,5", "batch_size cannot be 'one'"),
    ],
)
def test_a_bad_row_is_told_with_its_line(row: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected) as raised:
        read_batches(f"{TABLE}{row}\n", "mine.csv")
    assert "mine.csv, line 5" in str(raised.value)


def test_a_batch_that_stands_twice_is_refused() -> None:
    with pytest.raises(InputError, match="two times for batch size 1"):
        tabled_times(read_batches(f"{TABLE}T4,float32,1,9\n", "x"), None, source="x")


def test_a_gpu_that_the_catalogue_lacks_is_refused_with_the_nearest() -> None:
    rows = read_batches(TABLE.replace("L4,", "l4,"), "x")
    with pytest.raises(InputError, match=r"no GPU type 'l4' .*did you mean L4"):
        tabled_times(rows, None, source="x")


@pytest.mark.parametrize(
    ("sizes", "seconds"), [((), ()), ((2, 1), (1.0, 2.0)), ((1,), (0.0,)), ((1, 2), (1.0,))]
)
def test_costs_that_cannot_be_are_refused(
    sizes: tuple[int, ...], seconds: tuple[float, ...]
) -> None:
    with pytest.raises(InputError, match="T4 in float32"):
        BatchCosts(
            gpu_type="T4",
            dtype="float32",
            gpu_share=1.0,
            gpu_memory_gib=16.0,
            batch_sizes=sizes,
            seconds=seconds,
        )
