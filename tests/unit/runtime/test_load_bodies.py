import io
from pathlib import Path

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.runtime.load.transport import HttpBody
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.target import AppTarget, ModelTarget
from falcon_ray.runtime.torch_model import example_inputs

MODEL = """
import torch
def net(): return torch.nn.Identity()
def net_inputs(batch_size): return {inputs}
"""


def _arrays(directory: Path, inputs: str) -> dict[str, np.ndarray]:
    (directory / "net.py").write_text(MODEL.format(inputs=inputs), encoding="utf-8")
    model = ModelReference(Reference(f"{directory / 'net.py'}:net", str(directory)))
    body = ModelTarget(model).http_body(example_inputs(model, 1).samples()[0])
    with np.load(io.BytesIO(body.content), allow_pickle=False) as archive:
        return dict(archive)


def test_a_sample_is_sent_as_numbered_arrays_without_the_batch(tmp_path: Path) -> None:
    arrays = _arrays(tmp_path, "(torch.ones(batch_size, 2), torch.zeros(batch_size, 3))")
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "input_0": [1.0, 1.0],
        "input_1": [0.0, 0.0, 0.0],
    }


def test_named_inputs_keep_their_names(tmp_path: Path) -> None:
    arrays = _arrays(tmp_path, "dict(tokens=torch.ones(batch_size, 2, dtype=torch.int64))")
    assert {name: array.tolist() for name, array in arrays.items()} == {"tokens": [1, 1]}


APP = AppTarget(Reference("shop:build"))


def test_an_app_is_sent_what_json_can_hold_and_bytes_as_they_are() -> None:
    assert APP.http_body({"text": "hello"}) == HttpBody(b'{"text": "hello"}', "application/json")
    assert APP.http_body(b"\x00\x01") == HttpBody(b"\x00\x01", "application/octet-stream")


def test_a_request_that_no_body_can_hold_is_refused_with_the_next_step() -> None:
    with pytest.raises(InputError, match=r"build_request.*load_path handle"):
        APP.http_body({1, 2})
