"""What a search exports is what it measured: `serve run` answers as the factory's model does."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

import falcon_ray
from falcon_ray.runtime.references import Reference, load_reference
from tests.ray.processes import Command, free_port, own_ray

# The first test waits for a search and for `serve run`.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 30.0

FLOAT32_TOLERANCE = 1e-3
BFLOAT16_TOLERANCE = 1e-2
"""Of the largest output. A bfloat16 has 8 significant bits, so each rounding is off by up to
2**-9 = 0.2 %, and another batch or number of threads rounds elsewhere."""


NPY = b"\x93NUMPY\x01\x00v\x00" + (
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + bytes(4)
)
"""One float32 as `np.save` writes it."""


@dataclass(frozen=True)
class ServedRun:
    """The app that a run directory describes, running.

    Attributes:
        url: Where it answers.
        directory: The run directory.
        arguments: Of the application in serve.yaml.
    """

    url: str
    directory: Path
    arguments: dict[str, Any]

    def ask(self, body: bytes, content_type: str) -> tuple[int, dict[str, Any]]:
        """Status and decoded answer to a POST."""
        request = urllib.request.Request(  # noqa: S310 - loopback
            self.url, data=body, headers={"Content-Type": content_type}
        )
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, _decoded(error.read())

    def example(self) -> dict[str, NDArray[Any]]:
        """The arrays of the example request by name."""
        with np.load(self.directory / "example_request.npz") as archive:
            return dict(archive)

    def expected(self) -> NDArray[Any]:
        """What the factory's own model gives for the example request, in the served dtype."""
        factory = load_reference(Reference(self.arguments["model"]))
        torch.manual_seed(self.arguments["seed"])
        model = factory().eval()
        dtype = getattr(torch, self.arguments["configuration"]["dtype"])
        inputs = [torch.from_numpy(array)[None] for array in self.example().values()]
        moved = [each.to(dtype) if each.is_floating_point() else each for each in inputs]
        with torch.inference_mode():
            return model.to(dtype)(*moved)[0].float().numpy()

    @property
    def tolerance(self) -> float:
        """How far an answer may be from what is expected, as a share of the largest output."""
        is_exact = self.arguments["configuration"]["dtype"] == "float32"
        return FLOAT32_TOLERANCE if is_exact else BFLOAT16_TOLERANCE


def _decoded(body: bytes) -> dict[str, Any]:
    try:
        return json.loads(body)
    except ValueError:
        return {"not JSON": body.decode(errors="replace")}


@pytest.fixture(scope="module", params=["tiny", "quickstart"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServedRun]:
    """`serve run serve.yaml` on a Ray of its own, in the directory where a search left it."""
    if request.param == "tiny":
        result: falcon_ray.SearchResult = request.getfixturevalue("tiny_search")
        directory = result.directory
    else:
        directory = _quickstart_directory()
    config = yaml.safe_load((directory / "serve.yaml").read_text())
    port = free_port()
    # The only change: another process may have taken the port in the file.
    config["http_options"]["port"] = port
    elsewhere = tmp_path_factory.mktemp("served")
    (elsewhere / "serve.yaml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{port}/"
    with (
        own_ray() as ray,
        Command(
            "serve", "run", "serve.yaml", environment=ray.environment, directory=elsewhere
        ) as command,
    ):
        command.wait_until(lambda: _answers(url), "the app answers", timeout_s=START_TIMEOUT_S)
        yield ServedRun(url, directory, config["applications"][0]["args"])
        command.press_ctrl_c()
        command.wait(timeout_s=30)


def _quickstart_directory() -> Path:
    given = os.environ.get("FALCON_RAY_QUICKSTART_DIR")
    found = [Path(given)] if given else sorted((ROOT / "runs").glob("quickstart-*"))
    finished = [each for each in found if (each / "serve.yaml").is_file()]
    if not finished:
        pytest.skip(
            "no finished quickstart: run scripts/quickstart first, or name a run directory in "
            "FALCON_RAY_QUICKSTART_DIR"
        )
    return finished[-1]


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
            return answer.status == 200
    except OSError:
        return False


def _assert_as_expected(answer: dict[str, Any], served: ServedRun) -> None:
    expected = served.expected()
    (output,) = answer["outputs"]
    difference = np.abs(np.asarray(output) - expected).max()
    assert difference <= served.tolerance * np.abs(expected).max()


def test_the_example_request_gets_the_factorys_own_output(served: ServedRun) -> None:
    body = (served.directory / "example_request.npz").read_bytes()
    # What curl --data-binary says that it sends.
    status, answer = served.ask(body, "application/x-www-form-urlencoded")
    assert status == 200, answer
    _assert_as_expected(answer, served)


def test_json_gets_the_same_answer(served: ServedRun) -> None:
    (array,) = served.example().values()
    body = json.dumps({"inputs": array.tolist()}).encode()
    status, answer = served.ask(body, "application/json")
    assert status == 200, answer
    _assert_as_expected(answer, served)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        pytest.param(b"not json", "application/json", id="no JSON"),
        pytest.param(b"[1, 2]", "application/json", id="JSON without inputs"),
        pytest.param(b'{"inputs": [1, 2]}', "application/json", id="wrong shape"),
        pytest.param(b'{"inputs": "words"}', "application/json", id="no numbers"),
        pytest.param(b"", "application/octet-stream", id="empty"),
        pytest.param(b"PK\x03\x04 cut off", "application/octet-stream", id="damaged npz"),
        pytest.param(NPY, "application/octet-stream", id="npy instead of npz"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    served: ServedRun, body: bytes, content_type: str
) -> None:
    status, answer = served.ask(body, content_type)
    assert (status, list(answer)) == (400, ["error"]), answer
    assert answer["error"]
    assert "\n" not in answer["error"]
