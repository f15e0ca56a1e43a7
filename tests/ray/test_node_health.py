import pytest
import ray

from falcon_ray.runtime.node_health import alive_nodes, lost_nodes

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_address")]

NO_NODE = "0" * 56


def test_the_own_node_is_alive_and_not_lost() -> None:
    here = ray.get_runtime_context().get_node_id()
    assert here in alive_nodes()
    assert lost_nodes({here}) == frozenset()


def test_a_node_that_the_cluster_does_not_know_is_lost() -> None:
    assert lost_nodes({NO_NODE, *alive_nodes()}) == {NO_NODE}
