"""On a machine with an NVIDIA GPU: limits hold, and what a process takes is seen.

Each test limits a process of its own, for CUDA takes its limits once.
"""

import json
import subprocess
import sys
from typing import Any

import pytest
import torch

from falcon_ray.runtime.limits.gpu_limits import units_of_share

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]

_START = """
import json, os, torch
from falcon_ray.runtime.limits.replica_limits import limit_replica
from falcon_ray.space.configuration import Configuration
def limit(**values):
    return limit_replica(Configuration({"cpu_cores": 1, "n_gpus": 1, **values}))
"""


def _said(code: str) -> dict[str, Any]:
    """What a process that runs this code prints as JSON in its last line."""
    done = subprocess.run(
        [sys.executable, "-c", _START + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_torch_cannot_allocate_beyond_the_memory_limit() -> None:
    said = _said("""
limits = limit(gpu_memory_gib=2)
fits = torch.empty(2**30, dtype=torch.uint8, device="cuda")
try:
    torch.empty(2 * 2**30, dtype=torch.uint8, device="cuda")
    failed = False
except torch.OutOfMemoryError:
    failed = True
print(json.dumps({"failed": failed, **limits.enforcement()}))
""")
    assert (said["failed"], said["memory"]) == (True, "torch")


def test_half_a_gpu_is_enforced_and_slower_or_not_claimed() -> None:
    said = _said("""
import time
def seconds():
    a = torch.randn(4096, 4096, device="cuda")
    for _ in range(3): a @ a
    torch.cuda.synchronize(); start = time.perf_counter()
    for _ in range(20): a @ a
    torch.cuda.synchronize(); return time.perf_counter() - start
limits = limit(gpu_share=0.5)
limited = seconds()
units = limits.cuda.current_units()
said = {**limits.enforcement(), **limits.environment(), "units": units}
if said["compute"] == "green_context":
    limits.cuda.leave_green_context()
    said["slower"] = limited / seconds()
print(json.dumps(said))
""")
    if said["compute"] == "none":
        assert said["warning"]
        return
    total = torch.cuda.get_device_properties(0).multi_processor_count
    assert 0 < said["units"] <= units_of_share(0.5, total)
    if said["compute"] == "green_context":
        assert said["slower"] > 1.3  # half of the units, at a clock that may be higher


def test_a_whole_gpu_is_not_limited_and_says_what_it_is() -> None:
    said = _said("""
limits = limit()
print(json.dumps({**limits.enforcement(), **limits.environment()}))
""")
    assert (said["compute"], said["memory"]) == ("none", "none")
    assert said["gpu_uuid"].startswith("GPU-")
    assert int(said["gpu_units"]) > 0


def test_nvml_sees_what_a_process_allocates() -> None:
    pytest.importorskip("pynvml")
    said = _said("""
from falcon_ray.runtime.monitors.watch_actor import local_watch
held = torch.empty(2**30, dtype=torch.uint8, device="cuda")
watch = local_watch([os.getpid()])
usage = watch.usage().gpu
watch.stop()
print(json.dumps({"n": usage.n_gpus, "memory": usage.memory_bytes, "power": usage.power_w}))
""")
    assert said["n"] >= 1
    assert said["memory"] >= 2**30
    assert said["power"] is None or said["power"] > 0
