from falcon_ray.runtime.ledger.contract import NodeType
from falcon_ray.runtime.ray_session import Cluster
from falcon_ray.space.defaults import NodeShape

T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=8, ram_gib=32.0, gpu_type="L4", n_gpus=1)


def test_what_could_be_added_counts_as_well() -> None:
    types = (NodeType(name="l4", shape=L4, max_nodes=2),)
    assert Cluster((T4,), is_local=False, types=types).possible_nodes == (T4, L4, L4)
    assert Cluster((T4,), is_local=True).possible_nodes == (T4,)
