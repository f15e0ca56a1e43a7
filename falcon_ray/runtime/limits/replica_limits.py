"""The cores and the part of a GPU that a configuration gives a replica, and what it runs on.

Brings the limits of CPU and GPU together for the process it is called in.
"""

import os
from dataclasses import dataclass
from functools import partial

import torch

from falcon_ray.profiling.device_facts import cpu_identity
from falcon_ray.runtime.limits.cpu_affinity import (
    CorePool,
    CpuLimit,
    LinuxAffinity,
    by_topology,
    limit_cores,
)
from falcon_ray.runtime.limits.gpu_limits import GpuLimits, limit_gpu, mps_runs
from falcon_ray.runtime.limits.torch_cuda import TorchCuda
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.demand import Demand


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """What this process was limited to.

    Attributes:
        cpu: Its cores.
        cuda: Its GPU, None where it computes on the CPU.
        gpu: What it may use of it.
    """

    cpu: CpuLimit
    cuda: TorchCuda | None
    gpu: GpuLimits

    @property
    def device(self) -> str:
        """Where torch computes: `cpu` or `cuda`."""
        return "cpu" if self.cuda is None else "cuda"

    @property
    def n_threads(self) -> int:
        """Threads that torch computes with."""
        return self.cpu.n_threads

    def enforcement(self) -> dict[str, str]:
        """How each limit is enforced, read back now; to be asked in the thread that computes."""
        cuda = self.cuda
        return {
            "cpu": self.cpu.enforcement.value,
            "compute": "none" if cuda is None else self.gpu.compute_now(cuda).value,
            "memory": "none" if cuda is None else self.gpu.memory_now(cuda).value,
        }

    def environment(self) -> dict[str, str]:
        """What this process computes on and with, for people."""
        cpu = cpu_identity().name
        cores = () if self.cpu.reserved is None else sorted(self.cpu.reserved.cores)
        facts = {
            "device": f"cpu {torch.backends.cpu.get_cpu_capability()}",
            "cpu": cpu,
            "torch": torch.__version__,
            "threads": str(torch.get_num_threads()),
            "cores": ",".join(map(str, cores)) or "any",
        }
        if self.cuda is not None:
            facts |= self.cuda.facts()
            facts["device"] = f"cuda {facts['gpu']}"
        if self.gpu.warnings:
            facts["warning"] = "; ".join(self.gpu.warnings)
        return facts


def limit_replica(configuration: Configuration) -> ReplicaLimits:
    """Limit this process as a configuration says.

    Call it before anything of the process uses CUDA, in the thread that computes.
    """
    cpu = limit_cores(
        configuration.number("cpu_cores", 1),
        affinity=LinuxAffinity(),
        pool=CorePool(),
        order=by_topology,
    )
    torch.set_num_threads(cpu.n_threads)
    if not Demand.of(configuration).n_gpus:
        return ReplicaLimits(cpu, None, GpuLimits())
    cuda = TorchCuda()
    limits = limit_gpu(
        cuda,
        share=configuration.number("gpu_share", 1.0),
        memory_gib=configuration.number("gpu_memory_gib", 0.0) or None,
        mps_runs=partial(mps_runs, os.environ),
    )
    return ReplicaLimits(cpu, cuda, limits)
