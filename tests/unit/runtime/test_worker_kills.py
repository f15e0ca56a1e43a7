"""Counting memory kills by node; the nodes are fakes."""

from collections.abc import Mapping

from falcon_ray.runtime.monitors.worker_kills import Reading, WorkerKills


class FakeNodes:
    """What each node says when it is asked; None where it does not answer."""

    def __init__(self, **said: Mapping[str, int] | None) -> None:
        self.said: dict[str, Mapping[str, int] | None] = dict(said)
        self.asked: list[str] = []

    def ask(self, node: str) -> Reading:
        self.asked.append(node)
        said = self.said[node]
        return lambda: said


def test_kills_count_from_when_the_watch_began() -> None:
    nodes = FakeNodes(a={"workers": 5}, b={"workers": 1})
    kills = WorkerKills(["a"], nodes.ask)
    nodes.said["a"] = {"workers": 6, "workers/new": 1}
    assert kills.count() == 2  # (6 - 5) + 1
    assert "b" not in nodes.asked, "no replica can be there"


def test_a_node_that_does_not_answer_says_nothing() -> None:
    nodes = FakeNodes(late={"workers": 9}, silent=None)
    kills = WorkerKills(["late", "silent"], nodes.ask)
    nodes.said = {"late": None, "silent": {"workers": 9}}
    assert kills.count() == 0
