from collections.abc import Sequence

from falcon_ray.runtime.cluster_ledger import TYPES_S, ClusterWatch
from falcon_ray.runtime.ledger.contract import NodeType
from falcon_ray.space.defaults import NodeShape
from tests.fakes import VirtualClock

T4_TYPE = NodeType(
    name="t4", shape=NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1), max_nodes=1
)


class FakeHead:
    """Says which nodes it can add, or does not answer."""

    def __init__(self) -> None:
        self.answers = True
        self.n_asked = 0

    def __call__(self) -> Sequence[NodeType]:
        self.n_asked += 1
        if not self.answers:
            raise TimeoutError("the head did not say within 30 s")
        return (T4_TYPE,)


def test_what_can_be_added_stays_known_while_the_head_does_not_answer() -> None:
    head, clock = FakeHead(), VirtualClock()
    watch = ClusterWatch(head, clock)
    assert watch.types() == (T4_TYPE,)
    head.answers = False
    clock.advance(2 * TYPES_S)
    assert watch.types() == (T4_TYPE,)


def test_a_head_that_does_not_answer_is_not_asked_at_every_look() -> None:
    head, clock = FakeHead(), VirtualClock()
    head.answers = False
    watch = ClusterWatch(head, clock)
    assert [watch.types() for _ in range(3)] == [(), (), ()]
    assert head.n_asked == 1
    head.answers = True
    clock.advance(2 * TYPES_S)
    assert watch.types() == (T4_TYPE,)
