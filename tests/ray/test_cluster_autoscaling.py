"""Ray's own autoscaler with rendered node types, of which Ray's fake provider makes raylets."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from cluster.ray_config import render
from falcon_ray.runtime.testbed.autoscaling_cluster import HEAD_ID, HEAD_TYPE, launcher_config
from tests.ray.processes import Command, free_port, own_ray
from tests.unit.cluster.made_clusters import package, plan, provisioned

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

IDLE_S = 6.0
STORE_BYTES = 100 * 2**20
DRIVER = """
import json, sys, time
import ray

ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")

@ray.remote(num_cpus=0)
class Somebody:
    def ready(self):
        return True

def nodes():
    return sorted(
        each["Labels"]["falcon-ray/instance-type"]
        for each in ray.nodes() if each["Alive"] and each["Resources"].get("CPU")
    )

def brought(n, **options):
    them = [Somebody.options(**options).remote() for _ in range(n)]
    ray.get([each.ready.remote() for each in them], timeout=90)
    found = nodes()
    for each in them:
        ray.kill(each)
    return found

def gone():
    deadline = time.monotonic() + 90
    while nodes() and time.monotonic() < deadline:
        time.sleep(0.2)
    return nodes()

told = {"before": nodes()}
# Two halves fit one node of a T4, and the third needs another.
told["t4"] = brought(3, num_gpus=0.5, accelerator_type="T4")
told["after t4"] = gone()
told["label"] = brought(1, num_cpus=1, label_selector={"falcon-ray/instance-type": "g5.xlarge"})
told["spot"] = brought(1, num_gpus=1, label_selector={"ray.io/market-type": "spot"})
told["after all"] = gone()
print(json.dumps(told))
"""


@contextmanager
def autoscaling_head(directory: Path) -> Iterator[tuple[str, Mapping[str, str]]]:
    """A head without CPUs, whose autoscaler knows the rendered types of workers."""
    port, client = free_port(), free_port()
    address = f"127.0.0.1:{port}"
    rendered = render(
        plan(idle_timeout_minutes=IDLE_S / 60), provisioned(directory), package(directory)
    )
    config = launcher_config(
        [], gcs_address=address, idle_timeout_s=rendered["idle_timeout_minutes"] * 60
    )
    config["max_workers"] = rendered["max_workers"]
    config["upscaling_speed"] = rendered["upscaling_speed"]
    for name, each in rendered["available_node_types"].items():
        if name == rendered["head_node_type"]:
            continue
        # What is of EC2 and of real machines is left out; what the autoscaler decides by stays.
        config["available_node_types"][name] = each | {
            "node_config": {},
            "worker_setup_commands": [],
            "resources": {
                # The fake provider takes no memory.
                **{key: n for key, n in each["resources"].items() if key != "memory"},
                "object_store_memory": STORE_BYTES,
            },
        }
    file = directory / "autoscaling.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    with own_ray() as ray:
        # What it says that a node has would hold for the nodes that the head adds, too.
        hidden = ("PYTHONPATH", "RAY_OVERRIDE_RESOURCES")
        environment = {name: value for name, value in ray.environment.items() if name not in hidden}
        head = Command(
            *("ray", "start", "--head", "--block", "--port", str(port)),
            *("--num-cpus", "0", "--node-ip-address", "127.0.0.1", "--include-dashboard", "false"),
            *("--ray-client-server-port", str(client), "--dashboard-agent-listen-port", "0"),
            *("--temp-dir", str(ray.directory), "--object-store-memory", str(STORE_BYTES)),
            f"--autoscaling-config={file}",
            environment={
                **environment,
                "RAY_FAKE_CLUSTER": "1",
                "RAY_enable_autoscaler_v2": "1",
                "AUTOSCALER_UPDATE_INTERVAL_S": "1",
                "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
                "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
                "RAY_NODE_TYPE_NAME": HEAD_TYPE,
                "RAY_prestart_worker_first_driver": "0",
            },
            directory=directory,
        )
        with head:
            head.wait_until(
                lambda: "Ray runtime started" in head.output, "the head runs", timeout_s=90
            )
            try:
                yield address, environment
            finally:
                head.kill()
                ray.kill()


def test_demands_bring_their_types_and_idle_nodes_go(tmp_path: Path) -> None:
    with autoscaling_head(tmp_path) as (address, environment):
        driver = Command(
            *("python", "-c", DRIVER, address),
            environment=environment,
            directory=tmp_path,
        )
        with driver:
            assert driver.wait(timeout_s=250) == 0, driver.output
            told = json.loads(driver.output.splitlines()[-1])
    assert told["before"] == []
    assert told["t4"] == ["g4dn.xlarge", "g4dn.xlarge"]
    assert told["after t4"] == []
    assert told["label"] == ["g5.xlarge"]
    assert "g6.xlarge" in told["spot"]
    assert told["after all"] == []
