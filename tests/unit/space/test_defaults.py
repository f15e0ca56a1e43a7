import itertools

import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.defaults import NodeShape, default_baseline, default_space
from falcon_ray.space.dimension import Value

CATALOGUE = Catalogue.packaged()


def cpu(cpus: int) -> NodeShape:
    return NodeShape(cpus=cpus, ram_gib=4.0 * cpus, gpu_type=None, n_gpus=0)


def gpu(gpu_type: str, *, cpus: int, n_gpus: int = 1) -> NodeShape:
    return NodeShape(cpus=cpus, ram_gib=4.0 * cpus, gpu_type=gpu_type, n_gpus=n_gpus)


def values(space: ConfigurationSpace) -> dict[str, tuple[Value, ...]]:
    return {each.name: each.values for each in space.dimensions}


def test_a_laptop_with_two_cores_gets_96_candidates() -> None:
    space = default_space([cpu(2)])
    assert values(space) == {
        "cpu_cores": (1, 2),
        "batch_size": (1, 2, 4, 8, 16, 32),
        "batch_wait_ms": (0, 5, 20),
        "dtype": ("float32", "bfloat16"),
        "replicas": (1, 2),
    }
    # (cores, replicas) in {(1, 1), (1, 2), (2, 1)}; waiting only with a batch: 5 * 3 + 1; 2 dtypes
    assert len(space) == 3 * 16 * 2


def test_cores_are_powers_of_two_and_the_full_node() -> None:
    assert values(default_space([cpu(6)]))["cpu_cores"] == (1, 2, 4, 6)


def test_one_core_is_a_cluster_too() -> None:
    space = default_space([cpu(1)])
    assert (values(space)["cpu_cores"], values(space)["replicas"]) == ((1,), (1,))
    assert len(space) == 16 * 2


def test_a_batch_of_one_never_waits() -> None:
    for candidate in default_space([cpu(2)]).candidates:
        assert candidate["batch_size"] != 1 or candidate["batch_wait_ms"] == 0


@pytest.mark.parametrize("nodes", [[8], [4, 4], [2, 6], [3, 3, 3], [1, 2, 4]])
def test_cpu_replicas_fit_the_nodes_exactly_when_they_are_candidates(nodes: list[int]) -> None:
    space = default_space([cpu(cpus) for cpus in nodes])
    allowed = {(each["cpu_cores"], each["replicas"]) for each in space.candidates}
    for cores, replicas in itertools.product(values(space)["cpu_cores"], values(space)["replicas"]):
        places = sum(cpus // int(cores) for cpus in nodes)
        assert ((cores, replicas) in allowed) == (int(replicas) <= places), (cores, replicas)


def test_nodes_that_take_no_work_do_not_count() -> None:
    assert values(default_space([cpu(0), cpu(2)]))["cpu_cores"] == (1, 2)
    with pytest.raises(InputError, match=r"no node of the cluster offers CPUs.*add a worker node"):
        default_space([cpu(0)])
    with pytest.raises(InputError, match="no node of the cluster offers CPUs"):
        default_space([])


def test_one_gpu_gives_shares_with_the_memory_that_belongs_to_each() -> None:
    space = default_space([gpu("T4", cpus=4), cpu(16)])
    assert values(space) == {
        "gpu_type": ("T4",),
        "gpu_share": (0.25, 0.5, 1.0),
        "gpu_memory_gib": (3.5, 7.0, 14.5),  # 14.5 GiB / 4 and / 2, in half GiB
        "cpu_cores": (1, 2, 4),
        "batch_size": (1, 2, 4, 8, 16, 32, 64, 128),
        "batch_wait_ms": (0, 5, 20),
        "dtype": ("float32", "float16"),
        "replicas": (1, 2, 4),
    }
    assert len(space) > 1000


def test_replicas_end_where_gpus_or_cores_run_out() -> None:
    assert values(default_space([gpu("T4", cpus=2)]))["replicas"] == (1, 2)  # 2 cores
    assert values(default_space([gpu("T4", cpus=9)]))["replicas"] == (1, 2, 4)  # 1 / 0.25


def test_precisions_are_those_that_the_gpus_gain_from() -> None:
    def dtypes(*types: str) -> set[tuple[Value, Value]]:
        space = default_space([gpu(each, cpus=4) for each in types])
        return {(each["gpu_type"], each["dtype"]) for each in space.candidates}

    assert dtypes("A10G") == {("A10G", "float32"), ("A10G", "bfloat16")}
    assert dtypes("P4") == {("P4", "float32")}
    assert dtypes("T4", "L4") == {
        ("T4", "float32"),
        ("T4", "float16"),
        ("L4", "float32"),
        ("L4", "float16"),
        ("L4", "bfloat16"),
    }


MIXED = [
    gpu("T4", cpus=4),
    gpu("T4", cpus=4),
    gpu("A10G", cpus=8),
    gpu("A10G", cpus=48, n_gpus=4),
    gpu("L4", cpus=8),
    cpu(8),
]


def test_a_mixed_gpu_cluster_gives_a_search_worth_the_name() -> None:
    space = default_space(MIXED)
    assert values(space)["gpu_type"] == ("T4", "A10G", "L4")
    assert values(space)["cpu_cores"] == (1, 2, 4, 8, 12)  # 48 cores / 4 GPUs
    assert len(space) > 1000


def test_gpu_replicas_fit_the_nodes_exactly_when_they_are_candidates() -> None:
    space = default_space(MIXED)
    names = ("gpu_type", "gpu_share", "cpu_cores", "replicas")
    allowed = {tuple(each[name] for name in names) for each in space.candidates}
    for row in itertools.product(*(values(space)[name] for name in names)):
        gpu_type, share, cores, replicas = row
        places = sum(
            min(int(node.n_gpus / float(share)), node.cpus // int(cores))
            for node in MIXED
            if node.gpu_type == gpu_type
        )
        assert (row in allowed) == (int(replicas) <= places), row


def test_replicas_that_share_a_gpu_also_share_its_memory() -> None:
    for each in default_space(MIXED).candidates:
        offered = CATALOGUE.gpu(str(each["gpu_type"])).memory_gib * each.number("gpu_share", 1.0)
        assert each.number("gpu_memory_gib", 0.0) <= offered, each


def test_memory_limits_that_nearly_repeat_each_other_are_left_out() -> None:
    limits = values(default_space(MIXED))["gpu_memory_gib"]
    # T4 3.5, 7, 14.5; A10G and L4 5.5, 11, 22
    assert limits == (3.5, 5.5, 7.0, 11.0, 14.5, 22.0)
    close = [gpu("A10G", cpus=4), gpu("A100-80G", cpus=4)]
    # 5.5, 11, 22 and 19.5, 39.5, 79: 22 is less than 1.25 * 19.5
    assert values(default_space(close))["gpu_memory_gib"] == (5.5, 11.0, 19.5, 39.5, 79.0)


def test_every_candidate_of_a_cluster_of_catalogue_instances_has_a_price() -> None:
    instances = [CATALOGUE.instance(name) for name in ("g4dn.xlarge", "g5.12xlarge", "g6.2xlarge")]
    nodes = [
        NodeShape(each.vcpus, each.ram_gib, each.accelerator_type, each.n_gpus)
        for each in instances
    ]
    space = default_space(nodes)
    prices = Pricing(tuple(instances)).usd_per_hour(space.candidates)
    assert prices.shape == (len(space),)
    # The smallest replica: a quarter of a g4dn.xlarge, 0.526 / 4
    assert prices.min() == pytest.approx(0.1315)


def test_an_unknown_gpu_is_refused() -> None:
    with pytest.raises(InputError, match=r"no GPU type 'GeForce-RTX-5090'.*data/gpus.csv"):
        default_space([gpu("GeForce-RTX-5090", cpus=16)])


def test_a_node_has_a_gpu_type_exactly_when_it_has_gpus() -> None:
    with pytest.raises(InputError, match="has GPUs exactly when it has a gpu_type"):
        NodeShape(cpus=4, ram_gib=16, gpu_type=None, n_gpus=1)
    with pytest.raises(InputError, match="has GPUs exactly when it has a gpu_type"):
        NodeShape(cpus=4, ram_gib=16, gpu_type="T4", n_gpus=0)
    with pytest.raises(InputError, match="no negative amounts"):
        cpu(-1)


def test_the_baseline_is_what_plain_serve_does() -> None:
    assert default_baseline(default_space([cpu(4)])) == Configuration(
        {"cpu_cores": 1, "batch_size": 1, "batch_wait_ms": 0, "dtype": "float32", "replicas": 1}
    )


def test_the_baseline_takes_a_whole_gpu_of_the_first_type() -> None:
    assert default_baseline(default_space(MIXED)) == Configuration(
        {
            "gpu_type": "T4",
            "gpu_share": 1.0,
            "gpu_memory_gib": 14.5,  # the space goes up to 22, which no T4 has
            "cpu_cores": 1,
            "batch_size": 1,
            "batch_wait_ms": 0,
            "dtype": "float32",
            "replicas": 1,
        }
    )


def test_the_baseline_of_a_space_without_its_like_is_the_nearest_member() -> None:
    space = ConfigurationSpace.of(
        {"dtype": ["int8", "bfloat16"], "batch_size": [8, 16, 32], "replicas": [1, 2]},
        ["batch_size * replicas >= 16"],
    )
    # Wanted: int8, 8, 1. Batch 16 is half of log2(8)..log2(32) away, 2 replicas are all of it.
    assert default_baseline(space) == Configuration(
        {"dtype": "int8", "batch_size": 16, "replicas": 1}
    )
