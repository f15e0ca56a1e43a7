import pytest

from falcon_ray.runtime.cluster_readiness import FORGIVEN_AFTER_S, ClusterReadiness
from falcon_ray.runtime.ledger.contract import LedgerNode, NodeType
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.cost import Pricing
from falcon_ray.space.defaults import NodeShape
from falcon_ray.space.observation import Observation, TrialStatus, TrialTimes

T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)
L4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="L4", n_gpus=1)
SPACE = ConfigurationSpace.of({"gpu_type": ["T4", "L4"]})
CATALOGUE = Catalogue.packaged()
PRICING = Pricing((*CATALOGUE.instances_with("T4"), *CATALOGUE.instances_with("L4")))
CAN_ADD_L4 = NodeType(name="l4", shape=L4, max_nodes=2)


class Cluster:
    """What the cluster has, as one can change it."""

    def __init__(self, *nodes: LedgerNode, types: tuple[NodeType, ...] = ()) -> None:
        self.nodes, self.types, self.now_s = nodes, types, 0.0

    def readiness(self) -> ClusterReadiness:
        return ClusterReadiness(
            SPACE,
            PRICING,
            nodes=lambda: self.nodes,
            types=lambda: self.types,
            clock=lambda: self.now_s,
        )


def ended(
    gpu_type: str,
    *,
    status: TrialStatus = TrialStatus.FAILED,
    never_began: bool = False,
    **times: float,
) -> Observation:
    return Observation(
        configuration=Configuration({"gpu_type": gpu_type}),
        status=status,
        reason="it ended",
        times=TrialTimes(**times),
        never_began=never_began,
    )


def test_a_type_with_a_free_gpu_is_ready_and_one_to_be_added_costs_its_start() -> None:
    cluster = Cluster(LedgerNode(node_id="a", shape=T4), types=(CAN_ADD_L4,))
    now = cluster.readiness().now()
    assert now is not None
    assert now.ready.tolist() == [True, False]
    cheapest = min(each.usd_per_hour for each in CATALOGUE.instances_with("L4"))
    # A start-up of 180 s for a trial that is taken to last as long.
    assert now.start_cost.tolist() == [0.0, pytest.approx(cheapest)]


def test_a_busy_node_is_not_ready_and_costs_no_start() -> None:
    now = Cluster(LedgerNode(node_id="a", shape=T4, used_gpus=1.0)).readiness().now()
    assert now is not None
    assert not now.ready.any()
    assert now.start_cost[0] == 0.0
    assert not now.attainable[1]


def test_a_type_that_did_not_come_cannot_be_had_for_a_while() -> None:
    cluster = Cluster(types=(CAN_ADD_L4,))
    readiness = cluster.readiness()
    readiness.learn(ended("L4", wait_s=600.0, never_began=True))
    refused = readiness.now()
    assert refused is not None
    assert not refused.attainable[1]
    cluster.now_s = FORGIVEN_AFTER_S
    forgiven = readiness.now()
    assert forgiven is not None
    assert forgiven.attainable[1]


def test_how_long_a_node_took_to_come_is_what_the_next_one_is_reckoned_with() -> None:
    cluster = Cluster(types=(CAN_ADD_L4,))
    readiness = cluster.readiness()
    before = readiness.now()
    readiness.learn(ended("L4", wait_s=95.0, provision_s=90.0, deploy_s=4.0))
    after = readiness.now()
    assert before is not None
    assert after is not None
    assert after.start_cost[1] == pytest.approx(before.start_cost[1] / 2)  # 90 s of 180 s


def test_the_shortest_start_of_a_type_is_what_counts() -> None:
    cluster = Cluster(types=(CAN_ADD_L4,))
    readiness = cluster.readiness()
    before = readiness.now()
    for provision_s in (120.0, 90.0, 600.0):
        readiness.learn(ended("L4", provision_s=provision_s, deploy_s=4.0))
    after = readiness.now()
    assert before is not None
    assert after is not None
    assert after.start_cost[1] == pytest.approx(before.start_cost[1] / 2)  # 90 s of 180 s


def test_nothing_is_said_where_no_candidate_names_a_type() -> None:
    on_cpu = ConfigurationSpace.of({"cpu_cores": [1, 2]})
    readiness = ClusterReadiness(on_cpu, PRICING, nodes=lambda: (), types=lambda: ())
    assert readiness.now() is None
