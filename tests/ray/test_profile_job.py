"""Profiling on a real Ray: one task a device, stored block by block."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from falcon_ray.errors import FalconRayError, InputError
from falcon_ray.knowledge.profile.files import read_profile
from falcon_ray.profiling.device_profile import Block
from falcon_ray.runtime import profile_job
from falcon_ray.runtime.curve_store import CurveStoreClient
from falcon_ray.runtime.profile_request import ProfileRequest, ProfileResult
from falcon_ray.runtime.profile_site import BLURRED_RELATIVE_SD, SitePlan, sites_of_cluster
from tests.ray.conftest import target_reference

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


@pytest.fixture(scope="module", autouse=True)
def own_store(ray_address: str) -> Iterator[None]:  # noqa: ARG001 - Ray has to be there
    """These tests choose the location of the cluster's store, and leave none behind."""
    CurveStoreClient().close()
    yield
    CurveStoreClient().close()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profile") / "store"


@pytest.fixture(scope="module")
def result(store: Path, targets: Path) -> ProfileResult:
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
    measured = read_profile(store)
    blurred = [  # by a busy machine, and so worth another try
        [row for row in table.to_pylist() if row["relative_sd"] > BLURRED_RELATIVE_SD]
        for table in (measured.operators, measured.models)
    ]
    again = profile_job.profile(_request(store, targets))
    assert (again.n_operators, again.n_left) == (len(blurred[0]), 0)
    assert again.n_models == 0 or blurred[1]


def test_what_is_measured_goes_to_the_store_that_the_cluster_has(
    result: ProfileResult, store: Path, targets: Path, tmp_path: Path
) -> None:
    assert result.location == str(store)
    more = replace(_request(store, targets), batch_sizes=(2,), families=(), location=None)
    assert profile_job.profile(more).location == str(store)
    assert {row["batch_size"] for row in read_profile(store).models.to_pylist()} == {1, 2, 4}
    elsewhere = replace(more, location=str(tmp_path / "p"))
    with pytest.raises(InputError, match=f"keeps its profile at {store}, not at {tmp_path}"):
        profile_job.profile(elsewhere)


@pytest.mark.usefixtures("result")
def test_threads_that_no_cpu_has_are_refused_and_others_left_out_aloud(
    store: Path, targets: Path
) -> None:
    request = replace(_request(store, targets), families=())
    display = _Display()
    profile_job.profile(replace(request, threads=(1, 4096)), display)
    assert any("not measured with 4096 threads" in note for note in display.notes)
    message = r"^no CPU of the cluster has cores for 4096 threads; ask for at most \d+[^\n]*$"
    with pytest.raises(InputError, match=message):
        profile_job.profile(replace(request, threads=(4096,)))


def _plan(factory: str) -> SitePlan:
    return SitePlan(
        request=ProfileRequest(batch_sizes=(1,), threads=(1,)),
        models=((factory, target_reference("tiny.py", factory)),),
        families=(),
        decompositions=(),
        operators=(),
        model_rows=(),
        devices=(),
    )


@pytest.mark.usefixtures("ray_address")
def test_a_site_that_fails_does_not_keep_others_from_being_measured() -> None:
    (site,) = sites_of_cluster()
    gone = replace(site, node_id="a" * len(site.node_id))
    items = [item for _, item in profile_job.measured([gone, site], _plan("tiny"), _Display())]
    (failure,) = [item for item in items if isinstance(item, FalconRayError)]
    assert "the measuring task failed" in str(failure)
    assert "\n" not in str(failure)
    assert sum(len(item.models) for item in items if isinstance(item, Block)) == 1


@pytest.mark.usefixtures("ray_address")
def test_where_nothing_is_measured_the_first_failure_is_raised() -> None:
    with pytest.raises(FalconRayError, match="the weights of tiny are nowhere to be found"):
        list(profile_job.measured(sites_of_cluster(), _plan("raising"), _Display()))


def test_a_broken_model_is_one_line_before_anything_is_measured(
    tmp_path: Path, targets: Path
) -> None:
    request = ProfileRequest(models=(f"{targets}/tiny.py:raising",), location=str(tmp_path / "p"))
    with pytest.raises(InputError, match="the weights of tiny are nowhere to be found"):
        profile_job.profile(request)


def test_a_store_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("in the way")
    display = _Display()
    with pytest.raises(InputError, match="file"):
        profile_job.profile(ProfileRequest(location=str(tmp_path / "file" / "p")), display)
    assert display.notes == []
