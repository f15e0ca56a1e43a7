import numpy as np
import pytest

from falcon_ray.errors import InputError, UnknownDeviceError
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.prior import QUEUEING_SD, Host, Prior, expected_metrics
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.objective import Slo
from tests.unit.knowledge.known import CPU, RESIDUAL_SD, constants, one_layer, one_layer_s, profile

KNOWN = profile(constants(threads=1), constants("L4", threads=0), constants("T4", threads=0))
ON_CPU = Host(device=CPU.name, ram_bytes=2.0**33)
NO_HOST = Host(device="", ram_bytes=0.0)


def prior(
    space: ConfigurationSpace,
    *,
    host: Host = ON_CPU,
    slo: Slo | None = None,
    knowledge: Profile = KNOWN,
) -> Prior:
    latencies = Latencies(knowledge, Catalogue.packaged())
    return expected_metrics(space, one_layer(), latencies, host=host, slo=slo)


def test_every_candidate_gets_the_rate_that_its_batch_and_replicas_give() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "batch_size": [1, 6], "replicas": [1, 2]})
    found = prior(space)
    for candidate, log_rate, sd in zip(
        space.candidates,
        found.metrics["saturation_rps"].mean,
        found.metrics["saturation_rps"].sd,
        strict=True,
    ):
        batch, replicas = candidate.count("batch_size", 0), candidate.count("replicas", 0)
        assert np.exp(log_rate) == pytest.approx(replicas * batch / one_layer_s(batch))
        assert sd == pytest.approx(RESIDUAL_SD)


def test_constraints_leave_candidates_and_predictions_in_step() -> None:
    values = {"cpu_cores": [1], "batch_size": [1, 2, 4], "replicas": [1, 2]}
    free = ConfigurationSpace.of(values)
    cut = ConfigurationSpace.of(values, ["batch_size * replicas <= 4"])
    wanted = dict(zip(free.candidates, prior(free).metrics["saturation_rps"].mean, strict=True))
    got = dict(zip(cut.candidates, prior(cut).metrics["saturation_rps"].mean, strict=True))
    assert 0 < len(got) < len(wanted)
    assert got == {candidate: wanted[candidate] for candidate in cut.candidates}


def test_under_an_slo_floor_and_capacity_are_expected_with_wider_errors() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "batch_size": [1, 4], "batch_wait_ms": [0, 5]})
    found = prior(space, slo=Slo(latency_budget_ms=1000))
    floors = dict(
        zip(space.candidates, np.exp(found.metrics["floor_latency_ms"].mean), strict=True)
    )
    alone = 1e3 * one_layer_s(1)
    for candidate, floor in floors.items():
        waits = candidate.count("batch_size", 0) > 1
        assert floor == pytest.approx(alone + waits * candidate.number("batch_wait_ms", 0))
    assert found.metrics["capacity_rps"].sd == pytest.approx(np.hypot(RESIDUAL_SD, QUEUEING_SD))


def test_gpus_are_told_apart_by_their_facts() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "batch_size": [8]})
    rates = prior(space, host=NO_HOST).metrics["saturation_rps"].mean
    by_name = dict(zip((each["gpu_type"] for each in space.candidates), rates, strict=True))
    assert by_name["L4"] != by_name["T4"]


def test_memory_decides_who_fits() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4"], "gpu_memory_gib": [0.1, 14.0]})
    found = prior(space, host=NO_HOST)
    assert found.probability_fits[0] < 0.01
    assert found.probability_fits[1] > 0.99


def test_a_share_of_a_gpu_has_that_share_of_its_memory() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4"], "gpu_share": [0.01, 1.0]})
    found = prior(space, host=NO_HOST)
    assert found.probability_fits[0] < 0.01  # 0.01 x 14.5 GiB do not hold a CUDA context
    assert found.probability_fits[1] > 0.99


def test_a_dimension_that_is_not_understood_is_named() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "beams": [1, 4]})
    assert prior(space).warnings == (
        "the prior does not know what beams does, and expects no effect",
    )


def test_a_device_that_nobody_knows_is_refused() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1]})
    with pytest.raises(UnknownDeviceError, match="falcon-ray profile"):
        prior(space, knowledge=Profile.empty())
    with pytest.raises(InputError, match="names no gpu_type and no CPU is known"):
        prior(space, host=NO_HOST)


def test_of_a_device_that_nobody_knows_beside_known_ones_the_average_is_expected() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4", "NEW"], "batch_size": [8]})
    found = prior(space, host=NO_HOST)
    by_name = {str(each["gpu_type"]): i for i, each in enumerate(space.candidates)}
    rates = found.metrics["saturation_rps"]
    assert rates.mean[by_name["NEW"]] == pytest.approx(rates.mean[by_name["T4"]])
    assert rates.sd[by_name["NEW"]] > 2 * rates.sd[by_name["T4"]]
    assert any("'NEW'" in line for line in found.warnings)


def test_the_replicas_of_a_cpu_node_share_its_memory() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "replicas": [1, 64]})
    # A replica takes some 0.35 GiB, and the node has 8.
    assert prior(space).probability_fits[0] > 0.99
    assert prior(space).probability_fits[1] < 0.01
