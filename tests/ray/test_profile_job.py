"""Profiling on a real Ray: one task a device, stored block by block."""

from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.files import read_profile
from falcon_ray.runtime import profile_job
from falcon_ray.runtime.profile_request import ProfileRequest, ProfileResult

pytestmark = pytest.mark.ray


class _Display:
    def __init__(self) -> None:
        self.done: list[int] = []
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, device: str, *, doing: str, n_done: int, n_total: int) -> None:
        del device, doing
        assert n_done <= n_total
        self.done.append(n_done)

    def close(self) -> None:
        self.notes.append("closed")


def _request(store: Path, targets: Path) -> ProfileRequest:
    return ProfileRequest(
        models=(f"{targets}/tiny.py:tiny",),
        families=("softmax",),
        batch_sizes=(1, 4),
        threads=(1,),
        shapes_per_family=3,
        location=str(store),
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile") / "store"


@pytest.fixture(scope="module")
def result(ray_address: str, store: Path, targets: Path) -> ProfileResult:  # noqa: ARG001 - Ray has to be there
    display = _Display()
    result = profile_job.profile(_request(store, targets), display)
    assert display.done[-1] == 2 + 3  # batch sizes, and shapes
    assert display.notes[-1] == "closed"
    return result


def test_what_was_measured_is_in_the_profile(result: ProfileResult, store: Path) -> None:
    assert (result.n_operators, result.n_models, result.skipped, result.n_left) == (3, 2, [], 0)
    profile = read_profile(store)
    operators, models = profile.operators.to_pylist(), profile.models.to_pylist()
    assert {row["op"] for row in operators} == {"softmax"}
    assert {row["batch_size"] for row in models} == {1, 4}
    (device,) = profile.devices()
    assert {row["device"] for row in operators + models} == {device.name} == set(result.devices)
    (environment,) = profile.environments.to_pylist()
    assert {row["environment"] for row in operators + models} == {environment["environment"]}
    assert all(row["latency_us"] > 0 and row["n"] >= 3 for row in operators + models)


def test_nothing_is_measured_twice(result: ProfileResult, store: Path, targets: Path) -> None:
    assert result.n_operators
    again = profile_job.profile(_request(store, targets))
    assert (again.n_operators, again.n_models, again.n_left) == (0, 0, 0)


@pytest.mark.usefixtures("ray_address")
def test_a_broken_model_is_one_line_before_anything_is_measured(
    tmp_path: Path, targets: Path
) -> None:
    request = ProfileRequest(models=(f"{targets}/tiny.py:raising",), location=str(tmp_path / "p"))
    with pytest.raises(InputError, match="the weights of tiny are nowhere to be found"):
        profile_job.profile(request)


@pytest.mark.usefixtures("ray_address")
def test_a_store_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    display = _Display()
    with pytest.raises(InputError, match="file"):
        profile_job.profile(ProfileRequest(location=str(tmp_path / "file" / "p")), display)
    assert display.notes == []
