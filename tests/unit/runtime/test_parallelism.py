from falcon_ray.runtime.parallelism import trials_at_once
from falcon_ray.space.configuration import ConfigurationSpace
from falcon_ray.space.defaults import NodeShape

LAPTOP = NodeShape(cpus=8, ram_gib=16.0, gpu_type=None, n_gpus=0)
T4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="T4", n_gpus=1)
FOUR_L4 = NodeShape(cpus=48, ram_gib=192.0, gpu_type="L4", n_gpus=4)
ON_CPU = ConfigurationSpace.of({"cpu_cores": [1, 2], "replicas": [1, 2]})
ON_GPU = ConfigurationSpace.of({"gpu_type": ["T4", "L4"], "gpu_share": [0.5, 1.0]})


def test_a_trial_on_cpus_has_its_node_to_itself() -> None:
    assert trials_at_once(ON_CPU, [LAPTOP], max_trials=24, colocate=False) == 1
    assert trials_at_once(ON_CPU, [LAPTOP] * 3, max_trials=24, colocate=False) == 3


def test_trials_that_may_share_a_node_are_as_many_as_its_cores_hold() -> None:
    assert trials_at_once(ON_CPU, [LAPTOP], max_trials=24, colocate=True) == 8


def test_a_trial_on_gpus_has_its_gpus_to_itself() -> None:
    only_l4 = ConfigurationSpace.of({"gpu_type": ["L4"], "gpu_share": [0.5, 1.0]})
    assert trials_at_once(only_l4, [T4, FOUR_L4], max_trials=24, colocate=False) == 4
    assert trials_at_once(only_l4, [T4, FOUR_L4], max_trials=24, colocate=True) == 8


def test_later_trials_are_left_to_learn_from_earlier_ones() -> None:
    # 6 trials: 2 at once at most, so that at least 3 groups follow one another.
    assert trials_at_once(ON_GPU, [FOUR_L4] * 4, max_trials=6, colocate=False) == 2


def test_one_trial_runs_where_nothing_fits() -> None:
    assert trials_at_once(ON_GPU, [LAPTOP], max_trials=6, colocate=False) == 1
