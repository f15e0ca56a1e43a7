"""What a trial reserves, without a cluster."""

from collections.abc import Sequence

import pytest

from falcon_ray.errors import InfeasibleError
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.serve_backend import ServeBackend
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.defaults import NodeShape

MODEL = ModelTarget(ModelReference(Reference("a.file:model")))
LAPTOP = NodeShape(cpus=2, ram_gib=8.0, gpu_type=None, n_gpus=0)


def reserved(told: list[Sequence[str]], *, cpu_cores: int) -> None:
    configuration = Configuration({"cpu_cores": cpu_cores, "batch_size": 1, "replicas": 1})
    backend = ServeBackend(
        MODEL,
        app_name="app",
        nodes=[LAPTOP],
        timeout_s=1.0,
        ask_kills=lambda _: lambda: None,
        on_reserved=told.append,
    )
    with backend.reserve(configuration) as reservation:
        assert tuple(told[-1]) == reservation.node_ids


def test_who_needs_the_nodes_is_told_of_them_before_anything_is_deployed() -> None:
    told: list[Sequence[str]] = []
    reserved(told, cpu_cores=1)
    assert told == [()]


def test_nothing_is_told_of_what_no_node_can_hold() -> None:
    told: list[Sequence[str]] = []
    with pytest.raises(InfeasibleError):
        reserved(told, cpu_cores=3)
    assert told == []
