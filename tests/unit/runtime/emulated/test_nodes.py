import pytest

from falcon_ray.errors import ClusterError, InputError
from falcon_ray.runtime.emulated.nodes import emulated_nodes, node_with
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.defaults import NodeShape

T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="L4", n_gpus=1)
HEAD = NodeShape(cpus=0, ram_gib=4.0, gpu_type=None, n_gpus=0)


def test_a_node_has_its_gpus_part_of_the_cheapest_instance() -> None:
    t4 = Catalogue.packaged().instance("g4dn.xlarge")
    assert node_with("T4") == NodeShape(cpus=t4.vcpus, ram_gib=t4.ram_gib, gpu_type="T4", n_gpus=1)
    # Eight GPUs to a machine.
    a100 = Catalogue.packaged().instance("p4d.24xlarge")
    assert node_with("A100-40G") == NodeShape(
        cpus=a100.vcpus // 8, ram_gib=a100.ram_gib / 8, gpu_type="A100-40G", n_gpus=1
    )


def test_a_gpu_that_the_catalogue_lacks_is_told_with_the_nearest_and_what_to_do() -> None:
    with pytest.raises(InputError, match=r"did you mean A10G.*add a row to data/gpus\.csv"):
        node_with("A10X")


def test_the_nodes_that_are_asked_for_are_taken() -> None:
    assert emulated_nodes([HEAD, T4, L4, T4], ["T4", "T4"]) == (T4, T4)


def test_a_gpu_that_no_node_has_is_the_clusters_lack() -> None:
    with pytest.raises(ClusterError, match="no node with L4 or V100 to emulate; it has T4;") as no:
        emulated_nodes([HEAD, T4], ["L4", "T4", "V100"])
    assert no.value.exit_code == 4
    assert "accelerator_type:L4" in str(no.value)


def test_a_cluster_without_gpus_says_so() -> None:
    with pytest.raises(ClusterError, match="it has no GPUs;"):
        emulated_nodes([HEAD], ["T4"])


def test_an_unknown_name_is_the_users_mistake_and_not_the_clusters() -> None:
    with pytest.raises(InputError, match="did you mean T4"):
        emulated_nodes([HEAD, T4], ["t4"])
