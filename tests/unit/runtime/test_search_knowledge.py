import warnings
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
import pytest

from falcon_ray.errors import ClusterError
from falcon_ray.knowledge.profile.decompositions import model_key
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.unit.knowledge.known import CPU, one_layer

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray warns of when it is imported is not ours to mend
    from falcon_ray.profiling.device_facts import Environment
    from falcon_ray.runtime.emulated.marks import emulated_environment
    from falcon_ray.runtime.search_knowledge import SearchKnowledge


class FakeStore:
    def __init__(self, *, broken: bool = False) -> None:
        self.added: list[Mapping[str, pa.Table]] = []
        self.calls = 0
        self.flushes = 0
        self._broken = broken

    def add(self, tables: Mapping[str, pa.Table]) -> str:
        self.calls += 1
        if self._broken:
            raise ClusterError("the store is gone")
        self.added.append(tables)
        return "version"

    def flush(self) -> str:
        self.flushes += 1
        return "version"


def knowledge(store: FakeStore) -> SearchKnowledge:
    return SearchKnowledge(
        prior=None,
        decomposition=one_layer(),
        cpu=CPU.name,
        environment=Environment({"torch": "2"}),
        store=store,
    )


def observed(service_time_ms: float | None = 8.0, **values: Value) -> Observation:
    return Observation(
        configuration=Configuration({"batch_size": 4, "cpu_cores": 2, **values}),
        status=TrialStatus.MEASURED,
        measurement=Measurement(
            saturation_rps=100.0, service_time_ms=service_time_ms, n_requests=400
        ),
    )


def test_what_a_trial_measured_goes_into_the_store_at_once() -> None:
    store = FakeStore()
    knowledge(store).learn(observed())
    (tables,) = store.added
    (row,) = tables["models"].to_pylist()
    assert row["model"] == model_key(one_layer())
    assert (row["batch_size"], row["threads"], row["device"]) == (4, 2, CPU.name)
    assert row["latency_us"] == pytest.approx(8000)
    assert row["n"] == 400 // 4
    assert tables["decompositions"].num_rows == 1
    assert store.flushes == 1


def test_a_gpu_is_named_as_the_catalogue_names_it() -> None:
    store = FakeStore()
    knowledge(store).learn(observed(gpu_type="L4"))
    (row,) = store.added[0]["models"].to_pylist()
    assert (row["device"], row["threads"]) == ("L4", 0)


@pytest.mark.parametrize(
    "observation",
    [
        observed(replicas=2),
        observed(gpu_type="L4", gpu_share=0.5),
        observed(gpu_type="A100"),
        observed(None),
        Observation(
            configuration=Configuration({"batch_size": 4}),
            status=TrialStatus.INFEASIBLE,
            reason="out of memory",
        ),
    ],
    ids=["neighbours", "part of a GPU", "one of two cards", "no full batch", "infeasible"],
)
def test_what_says_nothing_of_the_model_alone_is_left_out(observation: Observation) -> None:
    store = FakeStore()
    knowledge(store).learn(observation)
    assert store.calls == 0


def test_nothing_is_learnt_from_an_emulated_accelerator() -> None:
    store = FakeStore()
    real = observed(gpu_type="L4")
    assert real.measurement is not None
    said = emulated_environment("L4", "float32")
    knowledge(store).learn(replace(real, measurement=replace(real.measurement, environment=said)))
    assert store.calls == 0


def test_a_store_that_fails_is_not_asked_again() -> None:
    store = FakeStore(broken=True)
    learner = knowledge(store)
    learner.learn(observed())
    learner.learn(observed())
    assert store.calls == 1
