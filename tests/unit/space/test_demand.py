import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.demand import Demand


def test_a_demand_is_that_of_each_replica_and_how_many_there_are() -> None:
    configuration = Configuration(
        {"gpu_type": "T4", "gpu_share": 0.5, "cpu_cores": 2, "replicas": 3, "batch_size": 8}
    )
    assert Demand.of(configuration) == Demand(cpu_cores=2, n_gpus=0.5, gpu_type="T4", replicas=3)


def test_a_replica_without_a_word_about_cores_takes_one() -> None:
    assert Demand.of(Configuration({"batch_size": 4})) == Demand(cpu_cores=1)


def test_a_share_of_several_gpus_is_refused_as_ray_refuses_it() -> None:
    with pytest.raises(InputError, match=r"a share of one GPU or whole ones, got 1\.5"):
        Demand(n_gpus=1.5)


@pytest.mark.parametrize(
    "wrong", [{"cpu_cores": -1.0}, {"n_gpus": -0.5}, {"replicas": 0}, {"cpu_cores": float("nan")}]
)
def test_amounts_below_zero_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match=next(iter(wrong))):
        Demand(**wrong)  # pyright: ignore[reportArgumentType]
