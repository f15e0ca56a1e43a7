"""Every way in which a trial can go wrong ends it in the right class and leaves nothing behind."""

from pathlib import Path

import pytest

from falcon_ray.runtime.testbed.fault_site import FaultSite
from falcon_ray.space.observation import TrialStatus
from falcon_ray.studies.measurement.fault_cases import CASES, FaultCase, NotHereError
from falcon_ray.studies.measurement.faults import make
from falcon_ray.studies.measurement.killed_search import kill_and_resume

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("no_app_left")]


@pytest.fixture
def site(ray_address: str, tmp_path: Path) -> FaultSite:
    return FaultSite(ray_address, tmp_path)


def _parameter(case: FaultCase) -> object:
    marks = [pytest.mark.slow] if case.needs_second_node else []
    return pytest.param(case, id=case.name.replace(" ", "-"), marks=marks)


@pytest.mark.parametrize("case", [_parameter(case) for case in CASES])
def test_a_fault_ends_its_trial_in_the_right_class_and_leaves_nothing(
    site: FaultSite, case: FaultCase
) -> None:
    try:
        outcome = make(site, case)
    except NotHereError as error:
        pytest.skip(str(error))
    assert outcome.wrong == ""
    assert outcome.leaks == ()


def test_after_all_faults_the_cluster_still_serves(site: FaultSite) -> None:
    observation = site.run("healthy")
    assert observation.status is TrialStatus.MEASURED, observation.reason


def test_a_search_whose_process_is_killed_is_resumed_without_loss(
    site: FaultSite, tmp_path: Path
) -> None:
    before = site.inventory()
    assert kill_and_resume(site.address, tmp_path) == ""
    assert site.inventory().apps == before.apps
