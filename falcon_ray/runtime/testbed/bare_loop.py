"""A model in a bare loop, in a process of its own: no Serve, no queue, no load from outside.

The replica's own limits and forward pass, batch after batch. What is left of the spread between
processes here is the machine's, and no measurement through Serve can have less.
"""

import json
import subprocess
import sys
import time
from dataclasses import dataclass

import torch

from falcon_ray.errors import TrialFailedError
from falcon_ray.runtime.limits.replica_limits import limit_replica
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.torch_model import TORCH_DTYPES, build_model, example_inputs, forward, stack
from falcon_ray.space.configuration import Configuration

START_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BareLoop:
    """What runs, and for how long.

    Attributes:
        factory: `package.module:factory` of the model.
        configuration: Its cores, batch size and dtype.
        warm_up_s: Seconds that are not counted.
        measure_s: Seconds that are.
    """

    factory: str
    configuration: Configuration
    warm_up_s: float
    measure_s: float


def run_in_new_process(loop: BareLoop) -> float:
    """Requests per second of one batch after the other, in a process that ends then.

    Raises:
        TrialFailedError: The process failed or did not end in time.
    """
    words = json.dumps(
        {
            "factory": loop.factory,
            "configuration": dict(loop.configuration),
            "warm_up_s": loop.warm_up_s,
            "measure_s": loop.measure_s,
        }
    )
    try:
        done = subprocess.run(
            [sys.executable, "-m", "falcon_ray.runtime.testbed.bare_loop", words],
            capture_output=True,
            check=True,
            text=True,
            timeout=START_TIMEOUT_S + loop.warm_up_s + loop.measure_s,
        )
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["no word"])[-1]
        raise TrialFailedError(f"the bare loop of {loop.factory} failed: {last}") from error
    except subprocess.TimeoutExpired as error:
        raise TrialFailedError(f"the bare loop of {loop.factory} did not end in time") from error
    return float(done.stdout.strip().splitlines()[-1])


def _run(loop: BareLoop) -> float:
    limits = limit_replica(loop.configuration)
    batch_size = loop.configuration.count("batch_size", 1)
    dtype = TORCH_DTYPES[loop.configuration.text("dtype", "float32")]
    model = ModelReference(Reference(loop.factory))
    example = example_inputs(model, 1)
    samples = example.samples() * batch_size
    module = build_model(model).to(device=limits.device, dtype=dtype)
    torch.set_num_threads(limits.n_threads)
    start_s = time.perf_counter()
    warm_s, n_batches = start_s, 0
    while (now_s := time.perf_counter()) < start_s + loop.warm_up_s + loop.measure_s:
        if now_s < start_s + loop.warm_up_s:
            warm_s, n_batches = now_s, 0
        forward(module, stack(samples, example.names), dtype=dtype, device=limits.device)
        n_batches += 1
    return n_batches * batch_size / (time.perf_counter() - warm_s)


if __name__ == "__main__":
    told = json.loads(sys.argv[1])
    rate_rps = _run(BareLoop(**{**told, "configuration": Configuration(told["configuration"])}))
    sys.stdout.write(f"{rate_rps!r}\n")
