"""How much memory is alive while a traced model runs, parameters not counted.

It follows when the memory of fake tensors is made and dropped. It knows neither an allocator's
rounding nor what an operator holds inside itself, but for what `touch` is told.
"""

import weakref

from torch import Tensor, nn

from falcon_ray.profiling.fake_model import tensors_of


class AliveMemory:
    """Bytes alive, noted whenever they grow.

    Args:
        module: Its parameters and buffers are not counted.
    """

    def __init__(self, module: nn.Module) -> None:
        self.levels: list[float] = [0.0]
        self._alive_bytes = 0
        self._known = {memory_key(tensor) for tensor in tensors_of(module)}

    def hold(self, tensor: Tensor) -> None:
        """Count the memory behind a tensor, once, until nothing refers to it any more."""
        storage = tensor.untyped_storage()
        key, n_bytes = memory_key(tensor), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._alive_bytes += n_bytes
        self.levels.append(self._alive_bytes)
        weakref.finalize(storage, self._drop, key, n_bytes).atexit = False

    def touch(self, workspace_bytes: float) -> None:
        """Note memory that one operator needs while it runs."""
        self.levels.append(self._alive_bytes + workspace_bytes)

    def _drop(self, key: int, n_bytes: int) -> None:
        self._known.discard(key)  # another tensor may get the same address
        self._alive_bytes -= n_bytes


def memory_key(tensor: Tensor) -> int:
    """Equal for tensors that are alive at once and share their memory."""
    return tensor.untyped_storage()._cdata  # noqa: SLF001 - no public identity
