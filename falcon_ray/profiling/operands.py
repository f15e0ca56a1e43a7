"""Operands of timed calls, cut from one pool of random numbers, in the caches or out of them.

In a model, the operator before has just written what an operator reads, so that is as near as it
is small: the same tensors serve every call. Weights come from as far away as the model is large,
since all others are read in between: copies take turns. Results go to memory that was last used
some operators ago: the last ones are kept. With that, the sum over the operators of MobileNetV3,
ResNet-50 and BERT at batch 1 came to 92-95 % of the model's own time on a CPU with 2 MiB of cache
a core; with everything in the caches it was 51-79 %. The module does not know operators.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from falcon_ray.profiling.benchmark import Call

TURNS_BYTES = 64 * 2**20
"""What the copies of a weight fill: more than the caches of a core, as most models do."""

KEPT_BYTES = 32 * 2**20
"""What the results that are kept fill."""

_MAX_TURNS = 256
_ALIGNMENT_BYTES = 64
_SCALE = 0.05
_PATTERN = 2**20


class Operands:
    """Tensors of one dtype on one device; building one costs nothing unless it is huge.

    Args:
        dtype: Of all floating-point operands.
        device: Where they live.
        turns_bytes: What the copies of a weight fill before the first takes its turn again; 0
            leaves one copy.
        kept_bytes: What the results that are kept fill; 0 keeps none.
        cold_activations: Whether activations take turns as weights do.
        pool_bytes: Size of the pool; what is larger is allocated by itself.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device,
        *,
        turns_bytes: int = TURNS_BYTES,
        kept_bytes: int = KEPT_BYTES,
        cold_activations: bool = False,
        pool_bytes: int = 2 * TURNS_BYTES,
    ) -> None:
        self.dtype = dtype
        self.device = device
        self._turns_bytes = turns_bytes
        self._kept_bytes = kept_bytes
        self._cold_activations = cold_activations
        generator = torch.Generator().manual_seed(0)
        # One pattern again and again: numbers differ within a row, which is all that matters.
        pattern = _SCALE * torch.randn(_PATTERN, generator=generator)
        n_patterns = math.ceil(pool_bytes / (dtype.itemsize * _PATTERN))
        self._pool = pattern.to(device=device, dtype=dtype).repeat(n_patterns)
        self._offset = 0
        self._kept: list[Tensor] = []
        self._n_replayed = 0
        self._turn_bytes = 0
        self._n_turns = 0

    def start(self) -> None:
        """Forget the operands of the operator before."""
        self._offset = 0
        self._kept = []
        self._n_replayed = 0
        self._turn_bytes = 0
        self._n_turns = 0

    def next_turn(self) -> bool:
        """Begin another copy of the weights; False where there are enough, or no weights."""
        self._n_replayed = 0
        self._n_turns += 1
        return 0 < self._turn_bytes < self._turns_bytes and self._n_turns < _MAX_TURNS

    def activation(self, *shape: int) -> Tensor:
        """What the operator before has written: the same at every turn."""
        if self._cold_activations:
            return self.weight(*shape)
        return self._replayed(lambda: self._cut(shape))

    def weight(self, *shape: int) -> Tensor:
        """What all models read anew at every pass: another copy at every turn."""
        self._turn_bytes += math.prod(shape) * self.dtype.itemsize
        return self._cut(shape)

    def indices(self, n: int, *, below: int) -> Tensor:
        """Random indices, int64, shape (n,): the same at every turn."""
        generator = torch.Generator().manual_seed(1)
        return self._replayed(
            lambda: torch.randint(0, below, (n,), generator=generator).to(self.device)
        )

    def keep_results(self, calls: Sequence[Call]) -> tuple[Call, ...]:
        """The same calls, the last results of which are kept."""
        if not self._kept_bytes:
            return tuple(calls)
        result = calls[0]()
        n_bytes = sum(each.nbytes for each in _tensors(result))
        kept: deque[object] = deque(maxlen=1 + min(_MAX_TURNS, self._kept_bytes // (n_bytes + 1)))

        def keeping(call: Call) -> Call:
            return lambda: kept.append(call())

        return tuple(keeping(call) for call in calls)

    def _replayed(self, make: Callable[[], Tensor]) -> Tensor:
        if self._n_replayed == len(self._kept):
            self._kept.append(make())
        self._n_replayed += 1
        return self._kept[self._n_replayed - 1]

    def _cut(self, shape: tuple[int, ...]) -> Tensor:
        n = math.prod(shape)
        if 2 * n > self._pool.numel():
            return self._pool[: min(n, _PATTERN)].repeat(math.ceil(n / _PATTERN))[:n].view(shape)
        if self._offset + n > self._pool.numel():
            self._offset = 0
        cut = self._pool[self._offset : self._offset + n].view(shape)
        step = _ALIGNMENT_BYTES // self.dtype.itemsize
        self._offset += math.ceil(n / step) * step
        return cut


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _tensors(each)
