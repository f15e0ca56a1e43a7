"""The Serve application around one PyTorch model: the same class in a trial and in production.

`build` is what `serve run` imports from an exported file. A replica holds the model behind
a batching queue, limited to the cores and the part of a GPU that the configuration says.
"""

import io
import json
import time
from collections import deque
from collections.abc import Sequence
from typing import Any
from zipfile import BadZipFile

import numpy as np
import ray
import torch
from pydantic import BaseModel, ConfigDict
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from falcon_ray.runtime.batch_queue import BatchQueue
from falcon_ray.runtime.limits.replica_limits import limit_replica
from falcon_ray.runtime.load.inside import Order, load_from_inside
from falcon_ray.runtime.model_reference import Array, ModelReference, Sample, one_line
from falcon_ray.runtime.placement import actor_options, batching
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.torch_model import (
    TORCH_DTYPES,
    build_model,
    example_inputs,
    forward,
    relative_error,
    stack,
)
from falcon_ray.space.configuration import Configuration


class TorchAppArguments(BaseModel):
    """Typed arguments of the application, as they stand in a Serve config file."""

    model_config = ConfigDict(extra="forbid")

    model: str
    """`package.module:factory` or `/path/to/file.py:factory`."""
    configuration: dict[str, str | int | float]
    """Value by dimension name: cpu_cores, batch_size, batch_wait_ms, dtype, replicas, ..."""
    seed: int = 0
    """Seeds torch before the factory runs."""
    input_shape: list[int] | None = None
    """Shape of one sample, where the factory has no `<factory>_inputs` sibling."""
    input_dtype: str = "float32"
    search_path: str = ""
    """A directory to import the model from."""
    node_ids: list[str] = []
    """Ray nodes that replicas may be on; any where there are none."""
    graceful_shutdown_s: float = 20.0
    """How long a replica may finish its requests when the app is deleted."""

    def reference(self) -> ModelReference:
        """The model as the rest of the code names it."""
        return ModelReference(
            Reference(self.model, self.search_path),
            self.seed,
            None if self.input_shape is None else tuple(self.input_shape),
            self.input_dtype,
        )


def build(args: TorchAppArguments) -> serve.Application:
    """The application of one model in one configuration."""
    configuration = Configuration(args.configuration)
    queue = batching(configuration)
    deployment: serve.Deployment = serve.deployment(  # pyright: ignore[reportAssignmentType]
        TorchReplica,
        name="TorchReplica",
        num_replicas=configuration.count("replicas", 1),
        ray_actor_options=actor_options(configuration, args.node_ids),
        max_ongoing_requests=queue.max_ongoing_requests,
        max_constructor_retry_count=1,
        graceful_shutdown_wait_loop_s=min(2.0, args.graceful_shutdown_s),
        graceful_shutdown_timeout_s=args.graceful_shutdown_s,
    )
    return deployment.bind(args.reference(), dict(args.configuration))


class TorchReplica:
    """One copy of the model.

    `predict` answers handles, `__call__` answers HTTP; both go through one batching queue.
    """

    def __init__(self, reference: ModelReference, values: dict[str, str | int | float]) -> None:
        configuration = Configuration(values)
        queue = batching(configuration)
        self._batch_size = queue.max_batch_size
        self._limits = limit_replica(configuration)
        self._threads = self._limits.n_threads
        self._dtype_name = configuration.text("dtype", "float32")
        self._dtype = TORCH_DTYPES[self._dtype_name]
        self._device = self._limits.device
        example = example_inputs(reference, 1)
        self._names = example.names
        self._example: Sample = example.samples()[0]
        self._service_times_s: deque[tuple[int, float]] = deque(maxlen=4096)
        self._load(reference)
        self._queue = BatchQueue(
            self._infer_batch, max_batch_size=queue.max_batch_size, wait_s=queue.wait_s
        )

    def _load(self, reference: ModelReference) -> None:
        """Build the model and compare its reduced-precision output with float32 once."""
        example = stack([self._example], self._names)
        model = build_model(reference).to(self._device)
        exact = forward(model, example, dtype=torch.float32, device=self._device)
        self._model = model.to(self._dtype)
        reduced = forward(self._model, example, dtype=self._dtype, device=self._device)
        self._output_error = relative_error(reduced, exact)

    def _infer_batch(self, samples: Sequence[Sample]) -> list[Sample]:
        if torch.get_num_threads() != self._threads:  # torch keeps the number per thread
            torch.set_num_threads(self._threads)
        start = time.perf_counter()
        outputs = forward(
            self._model, stack(samples, self._names), dtype=self._dtype, device=self._device
        )
        self._service_times_s.append((len(samples), time.perf_counter() - start))
        arrays = [output.numpy() for output in outputs]
        return [tuple(array[i] for array in arrays) for i in range(len(samples))]

    async def predict(self, sample: Sample) -> Sample:
        """Answer one request: arrays in, arrays out, without the batch dimension."""
        return await self._queue.submit(sample)

    async def load(self, order: Order) -> None:
        """Load the batching queue from inside the replica, without Serve's request path."""

        async def send() -> None:
            await self._queue.submit(self._example)

        await load_from_inside(
            send,
            order,
            replica=serve.get_replica_context().replica_id.unique_id,
            node=ray.get_runtime_context().get_node_id(),
        )

    async def facts(self) -> dict[str, Any]:
        """What only the replica knows: service time, output error, how limits are enforced.

        The service time is that of the full batches since the last asking.
        """
        full = [seconds for n, seconds in self._service_times_s if n == self._batch_size]
        self._service_times_s.clear()
        return {
            "replica": serve.get_replica_context().replica_id.unique_id,
            "service_time_ms": 1000 * float(np.median(full)) if full else None,
            "output_error": self._output_error,
            "enforcement": self._limits.enforcement(),
            "environment": {**self._limits.environment(), "dtype": self._dtype_name},
        }

    async def __call__(self, request: Request) -> Response:
        """Answer one HTTP request.

        The body is JSON `{"inputs": ...}` (nested lists, or a list of them for several inputs),
        or `.npz` with one array per input. The answer is JSON `{"outputs": [...]}`, one nested
        list per output tensor. `GET` describes the inputs.
        """
        if request.method == "GET":
            return JSONResponse(self._describe())
        try:
            sample = self._parse(await request.body(), request.headers.get("content-type", ""))
        except ValueError as error:
            return JSONResponse({"error": str(error)}, status_code=400)
        outputs = await self.predict(sample)
        return JSONResponse({"outputs": [output.tolist() for output in outputs]})

    def _describe(self) -> dict[str, Any]:
        return {
            "inputs": [
                {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
                for name, array in zip(self._input_names(), self._example, strict=True)
            ]
        }

    def _input_names(self) -> tuple[str, ...]:
        return input_names(self._names, len(self._example))

    def _parse(self, body: bytes, content_type: str) -> Sample:
        if "json" in content_type or body[:1] == b"{":
            payload = _json(body)
            inputs = payload.get("inputs")
            if inputs is None:
                raise ValueError('the body must be {"inputs": ...}')
            parts = [inputs] if len(self._example) == 1 else list(inputs)
        else:
            try:
                with np.load(io.BytesIO(body), allow_pickle=False) as archive:
                    parts = [archive[name] for name in self._input_names()]
            except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
                raise ValueError(
                    f"the body is neither JSON nor .npz with the arrays "
                    f"{', '.join(self._input_names())}: {one_line(error)}"
                ) from None
        if len(parts) != len(self._example):
            raise ValueError(f"the model takes {len(self._example)} inputs, got {len(parts)}")
        return tuple(
            _array(part, like=example, name=name)
            for part, example, name in zip(parts, self._example, self._input_names(), strict=True)
        )


def input_names(names: tuple[str, ...], n: int) -> tuple[str, ...]:
    """What the model's inputs are called in a request: by their own names, else numbered."""
    return names or tuple(f"input_{i}" for i in range(n))


def _json(body: bytes) -> dict[str, Any]:
    payload = json.loads(body)
    if not isinstance(payload, dict):
        raise ValueError('the body must be {"inputs": ...}')  # noqa: TRY004
    return payload


def _array(part: object, *, like: Array, name: str) -> Array:
    try:
        array = np.asarray(part, dtype=like.dtype)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} is no array of {like.dtype}: {one_line(error)}") from None
    if array.shape != like.shape:
        raise ValueError(f"{name} has shape {list(array.shape)}, expected {list(like.shape)}")
    return array
