"""Limits on a GPU by a fake of CUDA: what is tried, in which order, and what is claimed."""

import os
from pathlib import Path

import pytest

from falcon_ray.runtime.limits.gpu_limits import (
    MPS_PERCENTAGE,
    ComputeEnforcement,
    GpuLimits,
    MemoryEnforcement,
    limit_gpu,
    mps_runs,
    units_of_share,
    whole_groups,
)

GIB = 2**30


class FakeCuda:
    """A GPU with 108 units and 40 GiB.

    Args:
        environment: That the driver reads when CUDA is initialised.
        initialised: Whether that has happened.
        obeys_mps: Whether an MPS percentage takes effect.
        knows_units: Whether the number of physical units is known.
        green: Why green contexts do not work; empty where they do.
        extra: Units that a green context gives beyond those asked for; None where they cannot
            be read back.
        reads_fraction: Whether torch tells the fraction that it was set to.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        *,
        initialised: bool = False,
        obeys_mps: bool = False,
        knows_units: bool = True,
        green: str = "",
        extra: int | None = 0,
        reads_fraction: bool = True,
    ) -> None:
        self._environment = {} if environment is None else environment
        self._initialised = initialised
        self._obeys_mps = obeys_mps
        self._knows_units = knows_units
        self._green = green
        self._extra = extra
        self._reads_fraction = reads_fraction
        self._percent: str | None = None
        self.asked_for: int | None = None
        self.in_green_context = False
        self.fraction: float | None = None

    def _initialise(self) -> None:
        if not self._initialised:
            self._initialised = True
            self._percent = self._environment.get(MPS_PERCENTAGE)

    def initialised(self) -> bool:
        return self._initialised

    def memory_bytes(self) -> int:
        self._initialise()
        return 40 * GIB

    def set_memory_fraction(self, fraction: float) -> None:
        self.fraction = fraction

    def memory_fraction(self) -> float | None:
        return self.fraction if self._reads_fraction else None

    def capability(self) -> tuple[int, int]:
        return (8, 0)

    def visible_units(self) -> int:
        self._initialise()
        if self._obeys_mps and self._percent is not None:
            return 108 * int(self._percent) // 100
        return 108

    def current_units(self) -> int | None:
        if not self.in_green_context:
            return self.visible_units()
        assert self.asked_for is not None
        return None if self._extra is None else self.asked_for + self._extra

    def physical_units(self) -> int | None:
        self._initialise()
        return 108 if self._knows_units else None

    def enter_green_context(self, n_units: int) -> None:
        self._initialise()
        if self._green:
            raise RuntimeError(self._green)
        self.asked_for, self.in_green_context = n_units, True

    def leave_green_context(self) -> None:
        self.in_green_context = False


def _limit(
    cuda: FakeCuda,
    *,
    share: float = 1.0,
    memory_gib: float | None = None,
    mps: bool = False,
    environment: dict[str, str] | None = None,
) -> GpuLimits:
    return limit_gpu(
        cuda,
        share=share,
        memory_gib=memory_gib,
        mps_runs=lambda: mps,
        environment={} if environment is None else environment,
    )


def test_memory_is_a_fraction_for_torch() -> None:
    cuda = FakeCuda()
    limits = _limit(cuda, memory_gib=10)
    assert cuda.fraction == 0.25  # 10 of 40 GiB
    assert limits.memory is limits.memory_now(cuda) is MemoryEnforcement.TORCH
    assert limits.compute is ComputeEnforcement.NONE
    assert limits.warnings == ()


def test_more_memory_than_there_is_means_all_of_it() -> None:
    cuda = FakeCuda()
    assert _limit(cuda, memory_gib=80).memory is MemoryEnforcement.TORCH
    assert cuda.fraction == 1.0


def test_a_memory_limit_that_torch_does_not_confirm_is_not_claimed() -> None:
    limits = _limit(FakeCuda(reads_fraction=False), memory_gib=10)
    assert limits.memory is MemoryEnforcement.NONE
    assert "memory limit" in limits.warnings[0]


def test_a_memory_limit_that_something_changed_later_is_noticed() -> None:
    cuda = FakeCuda()
    limits = _limit(cuda, memory_gib=10)
    cuda.set_memory_fraction(1.0)
    assert limits.memory_now(cuda) is MemoryEnforcement.NONE


def test_a_whole_gpu_is_limited_by_nothing() -> None:
    cuda, environment = FakeCuda(), dict[str, str]()
    limits = _limit(cuda, mps=True, environment=environment)
    assert (limits, environment) == (GpuLimits(), {})
    assert not cuda.initialised()


def test_mps_gets_its_percentage_before_cuda_starts() -> None:
    environment: dict[str, str] = {}
    cuda = FakeCuda(environment, obeys_mps=True)
    limits = _limit(cuda, share=0.25, mps=True, environment=environment)
    assert environment == {MPS_PERCENTAGE: "25"}
    assert limits.compute is limits.compute_now(cuda) is ComputeEnforcement.MPS
    assert limits.most_units == 27  # a quarter of 108
    assert limits.warnings == ()
    assert not cuda.in_green_context


def test_without_mps_a_green_context_takes_the_share() -> None:
    cuda = FakeCuda()
    limits = _limit(cuda, share=0.25)
    # A quarter of 108 is 27; this GPU gives them in twos, and must not give more.
    assert cuda.asked_for == 26
    assert limits.compute is limits.compute_now(cuda) is ComputeEnforcement.GREEN_CONTEXT
    assert limits.warnings == ()


def test_mps_that_has_no_effect_is_not_claimed_and_a_green_context_helps() -> None:
    environment: dict[str, str] = {}
    cuda = FakeCuda(environment, obeys_mps=False)
    limits = _limit(cuda, share=0.5, mps=True, environment=environment)
    assert limits.compute is ComputeEnforcement.GREEN_CONTEXT
    assert cuda.asked_for == 54


def test_mps_cannot_take_a_share_of_a_process_that_uses_cuda_already() -> None:
    environment: dict[str, str] = {}
    cuda = FakeCuda(environment, obeys_mps=True, initialised=True, green="not compiled in")
    limits = _limit(cuda, share=0.5, mps=True, environment=environment)
    assert limits.compute is ComputeEnforcement.NONE
    assert environment == {}
    assert "before CUDA" in limits.warnings[0]
    assert "not compiled in" in limits.warnings[1]


def test_a_share_of_an_unknown_number_of_units_is_not_claimed() -> None:
    environment: dict[str, str] = {}
    cuda = FakeCuda(environment, obeys_mps=True, knows_units=False)
    limits = _limit(cuda, share=0.5, mps=True, environment=environment)
    assert limits.compute is ComputeEnforcement.NONE
    assert "falcon-ray[gpu]" in limits.warnings[0]


@pytest.mark.parametrize("extra", [2, None])
def test_a_green_context_that_gives_more_or_cannot_be_read_is_left_again(
    extra: int | None,
) -> None:
    cuda = FakeCuda(extra=extra)
    limits = _limit(cuda, share=0.25)
    assert limits.compute is ComputeEnforcement.NONE
    assert not cuda.in_green_context
    assert "the share allows 27" in limits.warnings[0]


def test_a_green_context_that_something_left_later_is_noticed() -> None:
    cuda = FakeCuda()
    limits = _limit(cuda, share=0.25)
    cuda.leave_green_context()
    assert limits.compute_now(cuda) is ComputeEnforcement.NONE


def test_a_share_smaller_than_the_gpu_can_set_apart_is_not_enforced() -> None:
    cuda = FakeCuda()
    limits = _limit(cuda, share=0.02)  # 3 units of 108, rounded up; it takes 4
    assert limits.compute is ComputeEnforcement.NONE
    assert cuda.asked_for is None
    assert "3 units" in limits.warnings[0]


@pytest.mark.parametrize(
    ("most", "capability", "n"),
    [
        (33, (9, 0), 32),  # steps of 8
        (7, (9, 0), 0),  # at least 8
        (16, (12, 0), 16),
        (27, (8, 6), 26),  # steps of 2
        (3, (8, 0), 0),  # at least 4
        (3, (7, 5), 2),
        (3, (6, 1), 3),
    ],
)
def test_units_come_in_the_hardwares_groups(most: int, capability: tuple[int, int], n: int) -> None:
    assert whole_groups(most, capability) == n


def test_a_share_of_units_is_rounded_up_but_not_by_floating_point() -> None:
    assert units_of_share(0.25, 132) == 33
    assert units_of_share(0.3, 10) == 3  # 0.3 * 10 is a little above 3 in binary
    assert units_of_share(0.01, 40) == 1


def test_mps_runs_while_someone_reads_the_control_pipe(tmp_path: Path) -> None:
    environment = {"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)}
    assert not mps_runs(environment)
    os.mkfifo(tmp_path / "control")
    assert not mps_runs(environment)
    daemon = os.open(tmp_path / "control", os.O_RDONLY | os.O_NONBLOCK)
    assert mps_runs(environment)
    os.close(daemon)
    assert not mps_runs(environment)


def test_a_file_is_no_control_pipe(tmp_path: Path) -> None:
    (tmp_path / "control").write_text("")
    assert not mps_runs({"CUDA_MPS_PIPE_DIRECTORY": str(tmp_path)})
