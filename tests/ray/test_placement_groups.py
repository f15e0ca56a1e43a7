"""Groups that ask Ray for nodes, and what a ledger that is started again does with them."""

from collections.abc import Mapping
from typing import Any

import pytest
import ray

from falcon_ray.runtime.ledger.provisioning import PREFIX, PlacementGroups, RayGroups
from falcon_ray.space.demand import Demand

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]

NOWHERE = Demand(cpu_cores=1, n_gpus=1, gpu_type="T4")


class Asker:
    """A process that asks for nodes, as the ledger does."""

    def __init__(self) -> None:
        self._groups = RayGroups()
        self._ours = PlacementGroups(self._groups)

    def want(self, demands: Mapping[str, Demand]) -> set[str]:
        self._ours.want(demands)
        return {each for each in self._groups.names() if each.startswith(PREFIX)}


def test_a_process_that_starts_again_removes_the_groups_that_it_no_longer_knows() -> None:
    options: dict[str, Any] = {
        "name": "asker",
        "namespace": "another",
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": 1,
        "max_task_retries": -1,
    }
    asker: Any = ray.remote(Asker).options(**options).remote()
    try:
        assert _said(asker.want.remote({"app/1": NOWHERE})) == {"falcon:app/1"}
        assert _said(asker.want.remote({"app/1": NOWHERE})) == {"falcon:app/1"}
        ray.kill(asker, no_restart=False)
        assert _said(asker.want.remote({"app/2": NOWHERE})) == {"falcon:app/2"}
        assert _said(asker.want.remote({})) == set()
    finally:
        ray.kill(asker)


def _said(call: Any) -> set[str]:  # noqa: ANN401 - a reference of Ray's
    return ray.get(call, timeout=30)
