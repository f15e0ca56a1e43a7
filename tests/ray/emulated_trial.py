"""A trial of an emulated model on an emulated cluster of its own; says as JSON what happened.

A program of its own, as a process is connected to one Ray only: the tests' has no GPUs.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import ray

from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.runtime import serve_apps
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.emulated.cluster import emulated_cluster
from falcon_ray.runtime.emulated.replica import EMULATED_REQUEST
from falcon_ray.runtime.emulated.target import EmulatedTarget
from falcon_ray.runtime.emulated.times import predicted_times
from falcon_ray.runtime.known_profile import known_profile
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import ray_session
from falcon_ray.runtime.references import parse_reference
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.trial.plan import MeasurementPlan
from falcon_ray.trial.steady_state import PrecisionRule, WarmUpRule

APP = "falcon-emulated-1"
CONFIGURATION = Configuration({"gpu_type": "T4", "cpu_cores": 1, "batch_size": 4})
TOO_LITTLE_MEMORY = Configuration({**CONFIGURATION, "gpu_memory_gib": 0.1})


class ReplicaCpu:
    """Seconds of CPU that replicas took between their first phase under load and their last."""

    def __init__(self) -> None:
        self._seen: list[tuple[float, float]] = []
        self.nodes: set[str] = set()

    def __call__(self, phase: str) -> None:
        state = serve_apps.app_state(APP)
        replicas = () if state is None else state.replicas
        self.nodes |= {each.node_id for each in replicas if each.node_id}
        for each in replicas:
            if each.pid is not None and phase != "deploying":
                times = psutil.Process(each.pid).cpu_times()
                self._seen.append((time.monotonic(), times.user + times.system))

    @property
    def share(self) -> float:
        """Of one core."""
        (start_s, first), (end_s, last) = self._seen[0], self._seen[-1]
        return (last - first) / (end_s - start_s)


def main() -> dict[str, Any]:
    """Deploy, measure and remove."""
    model = ModelTarget(ModelReference(parse_reference("resnet50", directory=Path.cwd())))
    space = ConfigurationSpace.of({"gpu_type": ["T4"], "batch_size": [1, 4]})
    times = predicted_times(
        space,
        None,
        decompose_model(model.model, name="resnet50"),
        Latencies(known_profile(None), Catalogue.packaged()),
    )
    plan = MeasurementPlan(
        warm_up=WarmUpRule(min_s=1.0, max_s=2.0), precision=PrecisionRule(min_s=3.0, max_s=4.0)
    )
    cpu = ReplicaCpu()
    with emulated_cluster(["T4", "L4"]) as address, ray_session(address) as cluster:
        setup = TrialSetup(
            target=EmulatedTarget(model, times, seed=0),
            request=ray.put(EMULATED_REQUEST),
            nodes=cluster.nodes,
            plan=plan,
            deploy_timeout_s=90.0,
        )
        observed = run_serve_trial(setup, CONFIGURATION, app_name=APP, on_phase=cpu)
        refused = run_serve_trial(setup, TOO_LITTLE_MEMORY, app_name=APP, on_phase=lambda _: None)
        gpus = {
            node["NodeID"]: [each for each in ("T4", "L4") if f"accelerator_type:{each}" in has]
            for node in ray.nodes()
            if (has := node["Resources"])
        }
        serve_apps.end_serve()
    return {
        "observation": observed.to_json(),
        "refused": refused.to_json(),
        "nodes": [[node.cpus, node.gpu_type, node.n_gpus] for node in cluster.nodes],
        "placed_on": [gpus[each] for each in cpu.nodes],
        "cpu_share": cpu.share,
        "predicted_rps": 4 / times.of(CONFIGURATION).seconds_at(4, share=1.0),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main()) + "\n")
