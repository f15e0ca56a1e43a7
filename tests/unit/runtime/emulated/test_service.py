import asyncio
import math
from collections.abc import Sequence

import numpy as np
import pytest

from falcon_ray.errors import InfeasibleCause, InputError
from falcon_ray.runtime.emulated.deployment import emulated_service
from falcon_ray.runtime.emulated.service import (
    EmulatedService,
    NoisyTimes,
    PacedSleep,
)
from falcon_ray.runtime.emulated.times import BatchCosts, EmulatedTimes
from falcon_ray.space.configuration import Configuration
from falcon_ray.trial.causes import cause_of

CONFIGURATION = Configuration({"gpu_type": "T4", "batch_size": 4})
TIMES = EmulatedTimes(
    (
        BatchCosts(
            gpu_type="T4",
            dtype="float32",
            gpu_share=1.0,
            gpu_memory_gib=16.0,
            batch_sizes=(1, 8),
            seconds=(0.01, 0.08),
            memory_gib=(2.0, 9.0),
        ),
    ),
    "made up",
)


def service(*, batch_sd: float = 0.0, deployment_sd: float = 0.0) -> EmulatedService:
    return emulated_service(
        TIMES, CONFIGURATION, batch_noise_sd=batch_sd, deployment_noise_sd=deployment_sd
    )


def taken(
    n: int,
    *,
    batch_sd: float = 0.03,
    deployment_sd: float = 0.02,
    seed: int = 0,
    configuration: Configuration = CONFIGURATION,
    deployment: str = "trial-1",
    rank: int = 0,
) -> Sequence[float]:
    times = NoisyTimes(
        service(batch_sd=batch_sd, deployment_sd=deployment_sd),
        seed=seed,
        configuration=configuration,
        deployment=deployment,
        rank=rank,
    )
    return [times.take(4) for _ in range(n)]


def test_a_batch_takes_the_time_of_its_own_size() -> None:
    times = NoisyTimes(service(), seed=0, configuration=CONFIGURATION, deployment="a")
    # 10 ms a request
    assert [times.take(n) for n in (1, 3, 4)] == pytest.approx([0.01, 0.03, 0.04])


def test_the_noise_of_batches_has_the_spread_that_it_should() -> None:
    logs = np.log(taken(4000, deployment_sd=0.0))
    assert float(logs.std()) == pytest.approx(0.03, rel=0.05)
    # The mean of the times is kept: 0.04 s, with a standard error of 0.03 / sqrt(4000).
    assert float(np.exp(logs).mean()) == pytest.approx(0.04, rel=0.0015)


def test_deployments_differ_by_a_factor_each() -> None:
    means = [
        taken(1, batch_sd=0.0, deployment=f"trial-{i}", configuration=CONFIGURATION)[0]
        for i in range(2000)
    ]
    assert float(np.log(means).std()) == pytest.approx(0.02, rel=0.05)


def test_the_same_seed_configuration_and_deployment_take_the_same_times() -> None:
    assert taken(2000) == taken(2000)


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"deployment": "trial-2"},
        {"configuration": Configuration({"gpu_type": "T4", "batch_size": 5})},
    ],
    ids=["seed", "deployment", "configuration"],
)
def test_another_one_takes_others(other: dict[str, int]) -> None:
    assert taken(1, batch_sd=0.0) != taken(1, batch_sd=0.0, **other)  # pyright: ignore[reportArgumentType]


def test_replicas_of_one_deployment_share_its_factor_and_not_their_batches_noise() -> None:
    assert taken(1, batch_sd=0.0, rank=0) == taken(1, batch_sd=0.0, rank=1)
    assert taken(1, rank=0) != taken(1, rank=1)


@pytest.mark.parametrize(
    ("values", "allowed_gib"),
    [
        ({}, 16.0),
        ({"gpu_share": 0.5}, 8.0),
        ({"gpu_memory_gib": 6.0}, 6.0),
        ({"gpu_share": 0.25, "gpu_memory_gib": 6.0}, 4.0),
    ],
)
def test_memory_is_what_the_share_or_the_limit_leaves(
    values: dict[str, float], allowed_gib: float
) -> None:
    found = emulated_service(TIMES, Configuration({**CONFIGURATION, **values}))
    assert found.allowed_gib == allowed_gib
    assert found.needed_gib == pytest.approx(5.0)  # 1 GiB, and 1 GiB a request


def test_what_does_not_fit_runs_out_of_memory() -> None:
    small = Configuration({**CONFIGURATION, "gpu_memory_gib": 4.9})
    with pytest.raises(MemoryError) as raised:
        emulated_service(TIMES, small).check_memory()
    assert str(raised.value) == (
        "emulated T4 out of memory: batches of 4 in float32 are predicted to need 5 GiB, and "
        "4.9 GiB are allowed"
    )
    assert cause_of(str(raised.value)) is InfeasibleCause.MEMORY


def test_what_fits_does_not() -> None:
    emulated_service(TIMES, Configuration({**CONFIGURATION, "gpu_memory_gib": 5.1})).check_memory()


def test_a_negative_spread_is_refused() -> None:
    with pytest.raises(InputError, match="batch_noise_sd must be finite and not negative"):
        service(batch_sd=-0.1)


class LateTimer:
    """A clock, and a sleep that ends so much too late."""

    def __init__(self, late_s: float) -> None:
        self.now_s = 100.0
        self.slept: list[float] = []
        self._late_s = late_s

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds + self._late_s


def test_what_a_timer_rings_late_is_taken_off_the_next_batch() -> None:
    timer = LateTimer(0.001)
    pace = PacedSleep(timer, timer.sleep)

    async def work() -> list[float]:
        return [await pace.spend(0.01) for _ in range(10)]

    took = asyncio.run(work())
    # 10 batches of 10 ms, and once the millisecond.
    assert timer.now_s - 100.0 == pytest.approx(0.101)
    assert timer.slept == pytest.approx([0.01] + 9 * [0.009])
    assert took == pytest.approx([0.011] + 9 * [0.01])


def test_what_a_timer_leaves_off_is_added_to_the_next_batch() -> None:
    timer = LateTimer(-0.0004)
    pace = PacedSleep(timer, timer.sleep)

    async def work() -> None:
        for _ in range(3):
            await pace.spend(0.01)

    asyncio.run(work())
    assert timer.slept == pytest.approx([0.01, 0.0104, 0.0104])
    assert timer.now_s - 100.0 == pytest.approx(0.0296)  # 30 ms, less once 0.4


def test_a_batch_after_a_pause_takes_all_of_its_time() -> None:
    timer = LateTimer(0.001)
    pace = PacedSleep(timer, timer.sleep)

    async def work() -> None:
        await pace.spend(0.01)
        timer.now_s += 0.5
        await pace.spend(0.01)

    asyncio.run(work())
    assert timer.slept == pytest.approx([0.01, 0.01])


def test_a_machine_that_stalls_is_not_made_up_for() -> None:
    timer = LateTimer(0.2)
    pace = PacedSleep(timer, timer.sleep)

    async def work() -> None:
        for _ in range(3):
            await pace.spend(0.08)

    asyncio.run(work())
    # At most 50 ms.
    assert timer.slept == pytest.approx([0.08, 0.03, 0.03])


def test_noise_of_none_is_none() -> None:
    assert taken(3, batch_sd=0.0, deployment_sd=0.0) == pytest.approx(3 * [0.04])
    assert not math.isnan(taken(1)[0])
