import math

import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.workload import LoadPath, Scenario, Workload


def test_by_default_requests_are_all_there_and_come_through_a_handle() -> None:
    workload = Workload()
    assert (workload.scenario, workload.path) == (Scenario.OFFLINE, LoadPath.HANDLE)
    assert workload.offered_rps is None


@pytest.mark.parametrize("rate_rps", [0.0, -5.0, math.nan, math.inf])
def test_an_offered_rate_is_positive_and_finite(rate_rps: float) -> None:
    with pytest.raises(InputError, match=f"must be positive and finite, got {rate_rps}"):
        Workload(scenario=Scenario.SERVER, offered_rps=rate_rps)


def test_a_rate_that_nothing_of_ours_can_offer_is_a_mistaken_unit() -> None:
    assert Workload(scenario=Scenario.SERVER, offered_rps=1e6).offered_rps == 1e6
    with pytest.raises(InputError, match="of 2e\\+06 is more than 1e\\+06 requests per second"):
        Workload(scenario=Scenario.SERVER, offered_rps=2e6)


@pytest.mark.parametrize("scenario", [Scenario.OFFLINE, Scenario.SINGLE_STREAM])
def test_a_rate_is_offered_to_a_server_only(scenario: Scenario) -> None:
    with pytest.raises(InputError, match=f"not in {scenario.value}; leave out offered_rps, or"):
        Workload(scenario=scenario, offered_rps=10.0)
