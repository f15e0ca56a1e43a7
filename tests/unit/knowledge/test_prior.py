import numpy as np
import pytest

from falcon_ray.errors import InputError, UnknownDeviceError
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.mixture import Expert, ExpertMixture
from falcon_ray.knowledge.operator_times import THE_REST
from falcon_ray.knowledge.prior import (
    OFFSET_SD,
    QUEUEING_SD,
    ROOFLINE_OFFSET_SD,
    ROOFLINE_RESIDUAL_SD,
    SATURATION,
    Host,
    Prior,
    expected_metrics,
    expert_mixture,
)
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.objective import Slo
from falcon_ray.space.workload import Scenario, Workload
from tests.unit.knowledge.known import (
    CPU,
    LAUNCH_S,
    RESIDUAL_SD,
    constants,
    one_layer,
    one_layer_s,
    profile,
)

KNOWN = profile(constants(threads=1), constants("L4", threads=0), constants("T4", threads=0))
ON_CPU = Host(device=CPU.name, ram_bytes=2.0**33)
NO_HOST = Host(device="", ram_bytes=0.0)


def prior(
    space: ConfigurationSpace,
    *,
    host: Host = ON_CPU,
    slo: Slo | None = None,
    workload: Workload = SATURATION,
    knowledge: Profile = KNOWN,
) -> Prior:
    latencies = Latencies(knowledge, Catalogue.packaged())
    return expected_metrics(space, one_layer(), latencies, host=host, slo=slo, workload=workload)


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


def test_a_single_stream_is_as_fast_as_lone_requests_follow_each_other() -> None:
    space = ConfigurationSpace.of(
        {"cpu_cores": [1], "batch_size": [1, 4], "batch_wait_ms": [0, 5], "replicas": [1, 2]}
    )
    alone = Workload(scenario=Scenario.SINGLE_STREAM)
    found = prior(space, workload=alone)
    assert "floor_latency_ms" not in found.metrics
    floors = prior(space, slo=Slo(latency_budget_ms=1000)).metrics["floor_latency_ms"]
    rates = found.metrics["single_stream_rps"]
    # 1000 ms over the latency in ms, whatever the number of replicas.
    assert np.exp(rates.mean) == pytest.approx(1000 / np.exp(floors.mean))
    assert rates.sd == pytest.approx(floors.sd)


def test_the_floor_at_an_offered_rate_tells_who_keeps_up() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "batch_size": [1], "replicas": [1, 4]})
    saturated = 1 / one_layer_s(1)
    slo = Slo(latency_budget_ms=1000)
    offered = Workload(scenario=Scenario.SERVER, offered_rps=2 * saturated)
    floors = np.exp(prior(space, slo=slo, workload=offered).metrics["floor_latency_ms"].mean)
    # One replica serves at 0.9 of its saturation, less than half of what comes; in ten seconds
    # more than half of it is left. Four get half of their saturation each.
    by_replicas = {each["replicas"]: floors[i] for i, each in enumerate(space.candidates)}
    assert by_replicas[1] == pytest.approx(2e3 * one_layer_s(1) + 1e4 * (1 - 0.45))
    assert by_replicas[4] == pytest.approx(2e3 * one_layer_s(1))


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


SLO = Slo(latency_budget_ms=1000)
ON_CPU_SPACE = ConfigurationSpace.of(
    {"cpu_cores": [1], "batch_size": [1, 6], "batch_wait_ms": [0, 5], "replicas": [1, 2]}
)


def mixture(
    space: ConfigurationSpace,
    *,
    host: Host = ON_CPU,
    slo: Slo | None = None,
    knowledge: Profile = KNOWN,
    notes: list[str] | None = None,
) -> ExpertMixture:
    return expert_mixture(
        space,
        one_layer(),
        Latencies(knowledge, Catalogue.packaged()),
        host=host,
        slo=slo,
        note=[].append if notes is None else notes.append,
    )


def expert(found: ExpertMixture, name: str) -> Expert:
    (chosen,) = (each for each in found.experts if each.name == name)
    return chosen


@pytest.mark.parametrize("slo", [None, SLO])
def test_the_composition_expects_what_the_prior_does(slo: Slo | None) -> None:
    found = expert(mixture(ON_CPU_SPACE, slo=slo), "composition")
    wanted = prior(ON_CPU_SPACE, slo=slo)
    assert set(found.metrics) == set(wanted.metrics) - {"service_time_ms"}
    for name, each in found.metrics.items():
        assert each.mean == pytest.approx(wanted.metrics[name].mean)
        whole = np.hypot(each.offset_sd, each.residual_sd)
        assert whole == pytest.approx(wanted.metrics[name].sd)


def test_most_of_the_error_on_one_device_is_shared() -> None:
    rate = expert(mixture(ON_CPU_SPACE), "composition").metrics["saturation_rps"]
    # 0.25 would be usual, but 64 % of the variance of 0.2^2 are 0.16^2; 0.12^2 are left.
    assert rate.offset_sd == pytest.approx(0.16)
    assert rate.residual_sd == pytest.approx(0.12)


def test_what_is_less_sure_on_some_candidates_is_not_shared() -> None:
    space = ConfigurationSpace.of({"gpu_type": ["T4", "NEW"], "batch_size": [8]})
    rate = expert(mixture(space, host=NO_HOST), "composition").metrics["saturation_rps"]
    assert [each["gpu_type"] for each in space.candidates] == ["T4", "NEW"]
    assert rate.offset_sd == pytest.approx(0.16)
    # Of 0.2 and of 1.
    assert rate.residual_sd == pytest.approx([0.12, np.sqrt(1.0 - 0.16**2)])


def test_the_offset_of_very_unsure_candidates_is_that_of_models() -> None:
    # Half a GPU was not measured: 0.2 more for halving, so each sd is hypot(0.2, 0.2) = 0.28.
    space = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "gpu_share": [0.5]})
    rate = expert(mixture(space, host=NO_HOST), "composition").metrics["saturation_rps"]
    assert rate.offset_sd == pytest.approx(OFFSET_SD)
    assert rate.residual_sd == pytest.approx(0.2)


def test_the_roofline_expects_what_facts_say_with_a_wide_error() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1, 2, 8], "batch_size": [1000]})
    rate = expert(mixture(space), "roofline").metrics["saturation_rps"]
    # 2 GFLOP at half of 100 GFLOP/s, of which 4 cores have all: 40 ms, 80 ms for two.
    wanted = [1000 / (seconds + 3e-6) for seconds in (0.16, 0.08, 0.04)]
    assert np.exp(rate.mean) == pytest.approx(wanted)
    assert rate.offset_sd == ROOFLINE_OFFSET_SD
    # Two and eight cores were not measured: 0.05 + 0.2 per doubling, beside the offset's 0.16.
    unsure = np.sqrt(0.2**2 + np.array([0.0, 0.25, 0.65]) ** 2 - 0.16**2)
    assert rate.residual_sd == pytest.approx(np.maximum(unsure, ROOFLINE_RESIDUAL_SD))


def test_experts_weigh_what_their_precision_is_at_the_median_candidate() -> None:
    found = mixture(ON_CPU_SPACE)
    assert expert(found, "composition").weight == pytest.approx(0.2**-2)
    assert expert(found, "roofline").weight == pytest.approx(1 / (0.45**2 + 0.3**2))


def test_queues_widen_what_is_shared_and_what_is_not() -> None:
    metrics = expert(mixture(ON_CPU_SPACE, slo=SLO), "composition").metrics
    half = QUEUEING_SD**2 / 2
    for name in ("capacity_rps", "floor_latency_ms"):
        assert metrics[name].offset_sd == pytest.approx(np.sqrt(0.16**2 + half))
        assert metrics[name].residual_sd == pytest.approx(np.sqrt(0.12**2 + half))


def test_the_memory_share_is_that_of_one_replica_and_finite() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "replicas": [1, 2]})
    found, wanted = mixture(space), prior(space)
    assert found.log_memory_share is not None
    allowed = 2.0**33 / np.array([1, 2])
    assert found.log_memory_share == pytest.approx(np.log(wanted.memory_bytes / allowed))
    without_ram = Host(device=CPU.name, ram_bytes=0.0)
    assert mixture(space, host=without_ram).log_memory_share == pytest.approx(10.0)
    unlimited = Host(device=CPU.name, ram_bytes=np.inf)
    assert mixture(space, host=unlimited).log_memory_share == pytest.approx(-10.0)


def test_operators_take_seconds_per_request_of_the_whole_deployment() -> None:
    found = mixture(ON_CPU_SPACE).operator_seconds
    assert set(found) == {"linear", THE_REST}
    for i, candidate in enumerate(ON_CPU_SPACE.candidates):
        batch, replicas = candidate.count("batch_size", 0), candidate.count("replicas", 0)
        # The launch is part of the time of the only operator.
        assert one_layer_s(batch) > LAUNCH_S
        assert found["linear"][i] == pytest.approx(one_layer_s(batch) / batch / replicas)


def test_where_knowledge_is_thin_is_noted() -> None:
    notes: list[str] = []
    mixture(ConfigurationSpace.of({"cpu_cores": [1], "beams": [1, 4]}), notes=notes)
    assert notes == ["the prior does not know what beams does, and expects no effect"]


def test_a_device_that_nobody_knows_has_no_experts() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1]})
    with pytest.raises(UnknownDeviceError, match="falcon-ray profile"):
        mixture(space, knowledge=Profile.empty())


def test_experts_of_a_single_stream_expect_its_rate() -> None:
    space = ConfigurationSpace.of({"cpu_cores": [1], "batch_size": [1, 4]})
    mixture = expert_mixture(
        space,
        one_layer(),
        Latencies(KNOWN, Catalogue.packaged()),
        host=ON_CPU,
        workload=Workload(scenario=Scenario.SINGLE_STREAM),
    )
    for expert in mixture.experts:
        assert expert.metrics.keys() == {"saturation_rps", "single_stream_rps"}
