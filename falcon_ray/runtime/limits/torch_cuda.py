"""CUDA as torch and the driver show it, for the first GPU that this process sees.

It answers questions and carries out what it is told; what a process may use is decided elsewhere.
"""

import ctypes
from typing import Any

import torch

from falcon_ray.runtime.monitors.nvml_monitor import open_nvml

_SM_RESOURCE = 1
_SM_COUNT_OFFSET = 96
"""`CUdevResource`: a type of 4 bytes, 92 reserved ones, then the number of multiprocessors."""
_RESOURCE_BYTES = 512
"""More than the driver writes."""


class TorchCuda:
    """See `gpu_limits.Cuda`."""

    def __init__(self) -> None:
        self._context: Any = None

    def initialised(self) -> bool:
        """See `Cuda.initialised`."""
        return torch.cuda.is_initialized()

    def memory_bytes(self) -> int:
        """See `Cuda.memory_bytes`."""
        return torch.cuda.get_device_properties(0).total_memory

    def set_memory_fraction(self, fraction: float) -> None:
        """See `Cuda.set_memory_fraction`."""
        torch.cuda.set_per_process_memory_fraction(fraction)

    def memory_fraction(self) -> float | None:
        """See `Cuda.memory_fraction`."""
        read = getattr(torch.cuda, "get_per_process_memory_fraction", None)  # not in torch 2.6
        return None if read is None else float(read())

    def capability(self) -> tuple[int, int]:
        """See `Cuda.capability`."""
        return torch.cuda.get_device_capability(0)

    def visible_units(self) -> int:
        """See `Cuda.visible_units`."""
        return torch.cuda.get_device_properties(0).multi_processor_count

    def current_units(self) -> int | None:
        """See `Cuda.current_units`."""
        try:
            driver = ctypes.CDLL("libcuda.so.1")
            context = ctypes.c_void_p()
            if driver.cuCtxGetCurrent(ctypes.byref(context)) != 0 or not context:
                return None
            resource = (ctypes.c_ubyte * _RESOURCE_BYTES)()
            if driver.cuCtxGetDevResource(context, ctypes.byref(resource), _SM_RESOURCE) != 0:
                return None
        except (OSError, AttributeError):  # no driver, or one before CUDA 12.4
            return None
        return ctypes.c_uint.from_buffer(resource, _SM_COUNT_OFFSET).value

    def physical_units(self) -> int | None:
        """See `Cuda.physical_units`."""
        nvml = open_nvml()
        if nvml is None:
            return None
        try:
            uuid = self.uuid()
            found = [device for device in nvml.devices() if device.uuid == uuid]
            return found[0].n_units(self.capability()) if found else None
        finally:
            nvml.close()

    def enter_green_context(self, n_units: int) -> None:
        """See `Cuda.enter_green_context`."""
        try:
            from torch.cuda.green_contexts import GreenContext  # noqa: PLC0415 - not in torch < 2.10
        except ImportError as error:
            raise RuntimeError(f"torch {torch.__version__} has no green contexts") from error
        torch.cuda.init()
        context: Any = GreenContext.create(num_sms=n_units, device_id=0)
        context.set_context()
        self._context = context  # it ends with its last reference

    def leave_green_context(self) -> None:
        """See `Cuda.leave_green_context`."""
        if self._context is not None:
            self._context.pop_context()
            self._context = None

    def uuid(self) -> str:
        """As NVML writes it."""
        return f"GPU-{torch.cuda.get_device_properties(0).uuid}"

    def facts(self) -> dict[str, str]:
        """What the GPU is and what runs it, by name."""
        properties = torch.cuda.get_device_properties(0)
        facts = {
            "gpu": properties.name,
            "gpu_uuid": self.uuid(),
            "gpu_units": str(properties.multi_processor_count),
            "cuda": str(torch.version.cuda),
        }
        if (nvml := open_nvml()) is None:
            return facts
        try:
            facts["driver"] = nvml.driver()
            for device in nvml.devices():
                if device.uuid == facts["gpu_uuid"]:
                    facts |= device.clocks()
        finally:
            nvml.close()
        return facts
