import json
import math

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue, Instance, cpu_node
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Cost, Pricing, Resource
from falcon_ray.space.dimension import Value

CATALOGUE = Catalogue.packaged()


def prices_of(*instance_types: str) -> Pricing:
    return Pricing(tuple(CATALOGUE.instance(name) for name in instance_types))


def cost(pricing: Pricing, **values: Value) -> Cost:
    found = pricing.cost(Configuration(values))
    assert found is not None
    return found


def test_a_whole_gpu_pays_for_the_whole_instance() -> None:
    assert cost(prices_of("g4dn.xlarge"), gpu_type="T4") == Cost(
        usd_per_hour=0.526,
        instance_type="g4dn.xlarge",
        replicas_per_instance=1,
        limited_by=Resource.GPU,
    )


@pytest.mark.parametrize(
    ("values", "fitting", "limited_by"),
    [
        # g4dn.12xlarge: 4 T4 of 16 GiB, 48 vCPUs, 192 GiB RAM
        ({"gpu_share": 0.25}, 16, Resource.GPU),  # 4 * (1 / 0.25)
        ({"gpu_share": 0.3}, 12, Resource.GPU),  # 4 * floor(3.33)
        ({"gpu_share": 0.25, "gpu_memory_gib": 6.0}, 8, Resource.GPU_MEMORY),  # 4 * floor(2.67)
        ({"gpu_share": 0.25, "gpu_memory_gib": 4.0}, 16, Resource.GPU),  # 4 * 4, both used up
        ({"gpu_share": 0.25, "cpu_cores": 4}, 12, Resource.CPU),  # 48 / 4
        ({"gpu_share": 0.25, "ram_gib": 24.0}, 8, Resource.RAM),  # 192 / 24
        ({"n_gpus": 2}, 2, Resource.GPU),  # 4 // 2
        ({"n_gpus": 3}, 1, Resource.GPU),  # 4 // 3: one GPU stays idle and is paid for
        ({"n_gpus": 2, "gpu_memory_gib": 30.0}, 2, Resource.GPU),  # 30 of 2 * 16, in 2 pairs
        ({"tensor_parallel": 2, "pipeline_parallel": 2}, 1, Resource.GPU),  # 2 * 2 = 4 GPUs
        ({"tensor_parallel": 2, "n_gpus": 1}, 4, Resource.GPU),  # n_gpus is the last word
    ],
)
def test_the_scarcest_resource_decides_how_many_replicas_share_the_price(
    values: dict[str, Value], fitting: int, limited_by: Resource
) -> None:
    got = cost(prices_of("g4dn.12xlarge"), gpu_type="T4", **values)
    assert (got.replicas_per_instance, got.limited_by) == (fitting, limited_by)
    assert got.usd_per_hour == pytest.approx(3.912 / fitting)


def test_rounding_loses_no_replica() -> None:
    node = cpu_node(8, 0.3, usd_per_hour=0.3)
    assert 0.3 / 0.1 < 3  # which it is not
    assert cost(Pricing((node,)), ram_gib=0.1).replicas_per_instance == 3


def test_all_replicas_are_paid_for() -> None:
    got = cost(prices_of("g4dn.xlarge"), gpu_type="T4", gpu_share=0.5, replicas=3)
    assert got.usd_per_hour == pytest.approx(0.789)  # 3 * 0.526 / 2
    assert got.replicas_per_instance == 2


def test_the_cheapest_instance_that_fits_is_taken() -> None:
    pricing = prices_of("g4dn.xlarge", "g4dn.2xlarge", "g4dn.12xlarge")
    few = cost(pricing, gpu_type="T4", cpu_cores=4)
    many = cost(pricing, gpu_type="T4", cpu_cores=8)
    # 4 cores: 0.526 / 1, 0.752 / 1, 3.912 / 4 = 0.978
    assert (few.instance_type, few.usd_per_hour) == ("g4dn.xlarge", 0.526)
    # 8 cores: does not fit, 0.752 / 1, 3.912 / 4 = 0.978
    assert (many.instance_type, many.usd_per_hour) == ("g4dn.2xlarge", 0.752)


def test_the_gpu_type_selects_instances_by_the_catalogues_name_and_by_rays() -> None:
    pricing = prices_of("g4dn.xlarge", "g5.xlarge", "p4d.24xlarge", "p4de.24xlarge")
    assert cost(pricing, gpu_type="A10G").instance_type == "g5.xlarge"
    assert cost(pricing, gpu_type="A100-80G").instance_type == "p4de.24xlarge"
    assert cost(pricing, gpu_type="A100").instance_type == "p4d.24xlarge"
    assert cost(pricing, gpu_type="A100", gpu_memory_gib=60).instance_type == "p4de.24xlarge"


def test_without_a_gpu_type_a_share_runs_on_the_cheapest_gpu() -> None:
    pricing = prices_of("m6i.xlarge", "g5.xlarge", "g4dn.xlarge")
    got = cost(pricing, gpu_share=0.5)
    assert got.instance_type == "g4dn.xlarge"
    assert got.usd_per_hour == pytest.approx(0.263)  # 0.526 / 2, against 1.006 / 2


def test_a_configuration_without_any_gpu_dimension_runs_on_an_instance_without_a_gpu() -> None:
    got = cost(prices_of("g4dn.xlarge", "m6i.xlarge"), cpu_cores=2, replicas=2)
    assert got.instance_type == "m6i.xlarge"
    assert got.usd_per_hour == pytest.approx(0.192)  # 2 * 0.192 / (4 / 2)
    assert got.limited_by is Resource.CPU


@pytest.mark.parametrize(
    ("instance_types", "cores", "usd_per_hour"),
    [
        (("g4dn.xlarge",), 1, 0.526 / 4),  # there is nothing else to run on
        (("m6i.xlarge", "g4dn.2xlarge"), 8, 0.752),  # the 4 vCPUs of m6i.xlarge are too few
    ],
)
def test_a_cpu_replica_on_a_gpu_instance_pays_for_the_idle_gpu(
    instance_types: tuple[str, ...], cores: int, usd_per_hour: float
) -> None:
    got = cost(prices_of(*instance_types), cpu_cores=cores)
    assert got.usd_per_hour == pytest.approx(usd_per_hour)


def test_a_replica_takes_one_core_unless_told_otherwise() -> None:
    assert cost(prices_of("m6i.xlarge"), batch_size=8).usd_per_hour == pytest.approx(0.048)


@pytest.mark.parametrize(
    "values",
    [
        {"gpu_type": "L4"},
        {"gpu_type": "T4", "cpu_cores": 8},
        {"gpu_type": "T4", "gpu_memory_gib": 17},
        {"gpu_type": "T4", "n_gpus": 2},
        {"gpu_type": "T4", "ram_gib": 17},
        {"cpu_cores": 8},
    ],
)
def test_what_no_instance_holds_has_no_price(values: dict[str, Value]) -> None:
    pricing = prices_of("g4dn.xlarge", "m6i.xlarge")  # 4 vCPUs and 16 GiB RAM each
    assert pricing.cost(Configuration(values)) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpu_type": "L4"}, r"of gpu_type=L4 \(none has the GPU L4\)"),
        ({"gpu_type": "T4", "cpu_cores": 8}, r"\(g4dn.xlarge has too little: CPU cores\)"),
        ({"gpu_type": "T4", "gpu_memory_gib": 17}, r"g4dn.xlarge has too little: GPU memory"),
    ],
)
def test_candidates_without_a_price_are_refused_with_the_reason(
    values: dict[str, Value], message: str
) -> None:
    candidates = [Configuration({"gpu_type": "T4"}), Configuration(values)]
    with pytest.raises(InputError, match=f"no priced instance holds one replica .*{message}"):
        prices_of("g4dn.xlarge").usd_per_hour(candidates)


def test_prices_of_many_candidates_equal_the_prices_of_each() -> None:
    space = ConfigurationSpace.of(
        {
            "gpu_type": ["T4", "A10G"],
            "gpu_share": [0.25, 0.5, 1],
            "cpu_cores": [1, 2, 4],
            "batch_size": [1, 2, 4, 8],
            "replicas": [2, 4, 8],
        }
    )
    pricing = prices_of("g4dn.xlarge", "g4dn.12xlarge", "g5.xlarge")
    got = pricing.usd_per_hour(space.candidates)
    each = [cost(pricing, **candidate).usd_per_hour for candidate in space.candidates]
    assert got.dtype == np.float64
    assert got.shape == (216,)  # 2 * 3 * 3 * 4 * 3
    assert got == pytest.approx(np.array(each))


def test_no_candidates_have_no_prices() -> None:
    assert prices_of("m6i.xlarge").usd_per_hour([]).shape == (0,)


def test_prices_survive_their_round_trip_through_json() -> None:
    pricing = Pricing((CATALOGUE.instance("p4d.24xlarge"), cpu_node(2, 7.5)))
    assert Pricing.from_json(json.loads(json.dumps(pricing.to_json()))) == pricing


@pytest.mark.parametrize("record", [{}, {"instances": None}, {"instances": [{"a": 1}]}])
def test_a_record_that_is_no_pricing_is_refused(record: dict[str, object]) -> None:
    with pytest.raises(InputError, match="this is no record of"):
        Pricing.from_json(record)


def test_prices_need_instances_each_once() -> None:
    with pytest.raises(InputError, match="at least one instance"):
        Pricing(())
    with pytest.raises(InputError, match=r"stands twice in the prices: m6i.xlarge, m6i.xlarge"):
        prices_of("m6i.xlarge", "m6i.xlarge")


def test_scaling_changes_one_price_and_says_so() -> None:
    pricing = prices_of("g4dn.xlarge", "g5.xlarge").scaled("g5.xlarge", 0.7)
    t4, a10g = pricing.instances
    assert t4 == CATALOGUE.instance("g4dn.xlarge")
    assert a10g.usd_per_hour == pytest.approx(0.7042)  # 1.006 * 0.7
    assert a10g.price_source.endswith("; times 0.7")


def test_a_dearer_instance_gives_way_to_another() -> None:
    pricing = prices_of("g4dn.xlarge", "g4dn.2xlarge")
    assert cost(pricing, gpu_type="T4").instance_type == "g4dn.xlarge"
    # 0.526 * 1.5 = 0.789 against 0.752
    dearer = pricing.scaled("g4dn.xlarge", 1.5)
    assert cost(dearer, gpu_type="T4").instance_type == "g4dn.2xlarge"


def test_what_cannot_be_scaled_is_refused() -> None:
    pricing = prices_of("g4dn.xlarge", "g5.xlarge")
    with pytest.raises(InputError, match=r"g5.xlage has no price here \(did you mean g5.xlarge"):
        pricing.scaled("g5.xlage", 1.3)
    for factor in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="factor must be positive and finite"):
            pricing.scaled("g5.xlarge", factor)


def test_of_equally_cheap_instances_the_first_is_taken() -> None:
    first, second = cpu_node(2, 8.0, 0.1), cpu_node(4, 8.0, 0.2)
    pairs: list[tuple[Instance, Instance]] = [(first, second), (second, first)]
    for pair in pairs:
        assert cost(Pricing(pair), cpu_cores=1).instance_type == pair[0].instance_type
