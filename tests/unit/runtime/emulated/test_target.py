import subprocess
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.files import packaged_profile
from falcon_ray.report.record import SearchHeader
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from tests.unit.report.searches import HEADER

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray warns of when it is imported is not ours to mend
    from falcon_ray.runtime.emulated.marks import (
        emulated_enforcement,
        emulated_environment,
        is_emulated,
    )
    from falcon_ray.runtime.emulated.setup import emulated_model, emulated_target, with_emulation
    from falcon_ray.runtime.emulated.target import EmulatedTarget
    from falcon_ray.runtime.emulated.times import BatchCosts, EmulatedTimes, TimedBatch
    from falcon_ray.runtime.model_reference import ModelReference
    from falcon_ray.runtime.placement import NODE_ID_LABEL
    from falcon_ray.runtime.references import Reference, parse_reference
    from falcon_ray.runtime.serve_backend import facts_of
    from falcon_ray.runtime.target import AppTarget, ModelTarget

from falcon_ray.space.observation import Measurement

MODEL = ModelTarget(ModelReference(parse_reference("ncf", directory=Path.cwd())))
SPACE = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": [1, 8]})
CONFIGURATION = Configuration(
    {"gpu_type": "T4", "gpu_share": 0.5, "batch_size": 8, "cpu_cores": 1, "replicas": 2}
)
COSTS = BatchCosts(
    gpu_type="T4",
    dtype="float32",
    gpu_share=1.0,
    gpu_memory_gib=16.0,
    batch_sizes=(1, 8),
    seconds=(0.01, 0.02),
)
TARGET = EmulatedTarget(MODEL, EmulatedTimes((COSTS,), "made up"), seed=3)
GPU_HEADER = replace(HEADER, target="ncf", space=SPACE, baseline=None)


def test_what_an_export_deploys_is_the_real_model() -> None:
    assert TARGET.import_path == "falcon_ray.runtime.torch_app:build"
    assert TARGET.arguments() == MODEL.arguments()
    assert TARGET.name == "ncf"


def test_it_is_loaded_as_the_model_would_be() -> None:
    assert TARGET.concurrency(CONFIGURATION) == MODEL.concurrency(CONFIGURATION) == 48
    body = TARGET.http_body(7)
    assert (body.content, body.content_type) == (b"7", "application/json")


@pytest.mark.parametrize("nodes", [(), ("b", "a")])
def test_its_replicas_take_gpus_as_the_models_would(nodes: Sequence[str]) -> None:
    app = TARGET.application(CONFIGURATION, nodes)
    deployment = app._bound_deployment  # noqa: SLF001
    assert deployment.num_replicas == 2
    expected = {"num_cpus": 1, "num_gpus": 0.5, "accelerator_type": "T4"}
    if nodes:
        expected["label_selector"] = {NODE_ID_LABEL: "in(a,b)"}
    assert expected.items() <= (deployment.ray_actor_options or {}).items()


def test_a_gpu_without_times_is_no_application() -> None:
    with pytest.raises(InputError, match="nothing says how long L4 takes in float32"):
        TARGET.application(Configuration({**CONFIGURATION, "gpu_type": "L4"}))


def test_what_replicas_say_marks_the_measurement() -> None:
    said = {
        "service_time_ms": 1.0,
        "output_error": None,
        "enforcement": emulated_enforcement(),
        "environment": emulated_environment("T4", "float32"),
    }
    facts = facts_of([said, said], {"ray": "2"})
    assert facts.environment["accelerator"] == "emulated T4"
    assert set(facts.enforcement.values()) == {"emulated"}
    real = Measurement(saturation_rps=1.0)
    assert is_emulated(replace(real, environment=facts.environment))
    assert not is_emulated(real)


def test_a_search_keeps_the_times_that_it_emulates() -> None:
    header = with_emulation(GPU_HEADER, MODEL, packaged_profile())
    assert header.emulated
    resumed = SearchHeader.from_json(header.to_json())
    target = emulated_target(resumed, MODEL, app_prefix="falcon-s1-")
    assert (target.seed, target.app_prefix) == (HEADER.seed, "falcon-s1-")
    for gpu_type in ("T4", "L4"):
        slow, fast = (
            target.times.of(Configuration({"gpu_type": gpu_type})).seconds[each] for each in (-1, 0)
        )
        assert slow >= fast > 0


def test_a_table_of_the_users_goes_before_the_knowledge() -> None:
    batches = tuple(
        TimedBatch(gpu_type=each, dtype="float32", batch_size=1, latency_ms=7.0)
        for each in ("T4", "L4")
    )
    header = with_emulation(GPU_HEADER, MODEL, packaged_profile(), batches, table="mine.csv")
    times = emulated_target(header, MODEL, app_prefix="").times
    assert times.source == "given by mine.csv"
    assert times.of(Configuration({"gpu_type": "L4"})).seconds == (0.007,)


def test_a_table_that_lacks_a_gpu_of_the_space_is_refused() -> None:
    batches = (TimedBatch(gpu_type="T4", dtype="float32", batch_size=1, latency_ms=7.0),)
    with pytest.raises(InputError, match="nothing says how long L4 takes"):
        with_emulation(GPU_HEADER, MODEL, packaged_profile(), batches)


def test_an_application_cannot_be_emulated() -> None:
    with pytest.raises(InputError, match="build is an application"):
        emulated_model(AppTarget(Reference("shop:build")))
    assert emulated_model(MODEL) is MODEL


def test_a_search_that_is_not_emulated_has_nothing_to_emulate() -> None:
    with pytest.raises(InputError, match="does not say what it emulates"):
        emulated_target(HEADER, MODEL, app_prefix="")


def test_the_process_of_a_replica_holds_neither_torch_nor_the_knowledge() -> None:
    program = (
        "import sys, falcon_ray.runtime.emulated.replica; "
        "print(sorted({'torch', 'falcon_ray.knowledge'} & set(sys.modules)))"
    )
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=True
    )
    assert found.stdout == "[]\n"
