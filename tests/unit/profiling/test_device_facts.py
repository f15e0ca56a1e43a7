from falcon_ray.profiling.device_facts import (
    CpuIdentity,
    Environment,
    cpu_environment,
    cpu_identity,
    cpu_model,
    gpu_name,
)

CPUINFO = """processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8488C CPU @ 2.40GHz

processor\t: 1
cpu family\t: 6
model\t\t: 999
"""


def test_a_cpu_is_named_without_trademarks_and_with_its_numbers() -> None:
    assert cpu_model(CPUINFO) == "Intel Xeon Platinum 8488C @ 2.40GHz (6-143)"


def test_a_cpu_without_cpuinfo_has_a_name_nevertheless() -> None:
    assert cpu_model("")


def test_the_same_cpu_with_other_cores_is_another_device() -> None:
    assert CpuIdentity("A", 1).device == "A, 1 core"
    assert CpuIdentity("A", 8).device == "A, 8 cores"


def test_gpus_are_found_in_the_catalogue_by_what_cuda_calls_them() -> None:
    names = ("Tesla T4", "NVIDIA A100-SXM4-40GB", "NVIDIA H100 80GB HBM3", "NVIDIA L40S")
    assert [gpu_name(name) for name in names] == ["T4", "A100", "H100", "L40S"]
    assert gpu_name("Voodoo 3") == "Voodoo 3"


def test_equal_facts_have_equal_keys_in_any_order() -> None:
    first = Environment({"torch": "2.13", "cores": "2"})
    assert first.key == Environment({"cores": "2", "torch": "2.13"}).key
    assert first.key != Environment({"cores": "2", "torch": "2.14"}).key


def test_this_machine_has_an_environment() -> None:
    identity = cpu_identity()
    assert identity.cores >= 1
    facts = cpu_environment(identity).facts
    assert facts["cpu"] == identity.name
    assert facts["torch"]
