"""What a user may ask of a profiling run, what it is told meanwhile, and what comes out of it."""

import shlex
from dataclasses import dataclass, field
from typing import Any, Protocol

from falcon_ray.errors import InputError
from falcon_ray.profiling.shape_design import FAMILIES
from falcon_ray.runtime.torch_model import TORCH_DTYPES

DEFAULT_SHAPES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """What to measure, and where to store it.

    Attributes:
        models: Names of reference models, or `package.module:factory`, to run as a whole; none
            for all reference models, and the operators.
        families: Whose operators; none for all where `models` names none, else for no operators.
        dtypes: Of models and operators.
        batch_sizes: Of whole models; none for 1 to 32 on CPUs and 1 to 128 on GPUs.
        threads: On CPUs that have as many cores; none for 1 and all physical cores.
        shares: Of the compute units of GPUs.
        location: Of the profile; None for that of the cluster's store, else the default one.
        time_budget_s: Longest time for each device; None for no limit.
        address: Of a Ray cluster.
        shapes_per_family: Operator shapes of each family, twice as many of linear layers.
        seed: Equal seeds choose equal shapes.

    Raises:
        InputError: A value is out of range.
    """

    models: tuple[str, ...] = ()
    families: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("float32",)
    batch_sizes: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    shares: tuple[float, ...] = (1.0,)
    location: str | None = None
    time_budget_s: float | None = None
    address: str | None = None
    shapes_per_family: int = DEFAULT_SHAPES
    seed: int = 0

    def __post_init__(self) -> None:
        known = [family.value for family in FAMILIES]
        for what, given, choices in (
            ("family", self.families, known),
            ("dtype", self.dtypes, list(TORCH_DTYPES)),
        ):
            for each in given:
                if each not in choices:
                    raise InputError(f"{what} {each!r}: choose among {', '.join(choices)}")
        if not self.dtypes or not self.shares:
            raise InputError("give at least one dtype and one share, or leave them out")
        if min((*self.batch_sizes, *self.threads, self.shapes_per_family), default=1) < 1:
            raise InputError("batch sizes, threads and shapes must be 1 or more")
        if not all(0 < share <= 1 for share in self.shares):
            raise InputError(f"shares lie above 0 and up to 1, got {self.shares}")
        if self.time_budget_s is not None and not self.time_budget_s > 0:
            raise InputError(f"time_budget_s must be positive, got {self.time_budget_s!r}")

    def threads_on(self, n_cores: int) -> tuple[int, ...]:
        """Numbers of threads to measure with on a CPU; those above its cores are left out.

        Args:
            n_cores: Physical cores of the CPU.
        """
        if not self.threads:
            return tuple(sorted({1, n_cores}))
        return tuple(n for n in self.threads if n <= n_cores)

    @property
    def command(self) -> str:
        """The command that asks for the same."""
        words = ["falcon-ray", "profile"]
        for flag, values in (
            ("--model", self.models),
            ("--family", self.families),
            ("--dtype", self.dtypes),
        ):
            words += [word for value in values for word in (flag, value)]
        for flag, numbers in (("--batch-sizes", self.batch_sizes), ("--threads", self.threads)):
            words += [flag, ",".join(map(str, numbers))] if numbers else []
        if self.shares != (1.0,):
            words += ["--shares", ",".join(f"{share:g}" for share in self.shares)]
        if self.shapes_per_family != DEFAULT_SHAPES:
            words += ["--shapes-per-family", str(self.shapes_per_family)]
        for flag, value in (
            ("--store", self.location),
            ("--time-budget-s", self.time_budget_s),
            ("--address", self.address),
            ("--seed", self.seed or None),
        ):
            words += [flag, str(value)] if value is not None else []
        return shlex.join(words)


class ProfileDisplay(Protocol):
    """Told what is measured, as it is."""

    def note(self, text: str) -> None:
        """Something worth one line."""
        ...

    def progress(self, device: str, *, doing: str, n_done: int, n_total: int) -> None:
        """How far a device has come."""
        ...

    def close(self) -> None:
        """Nothing more will follow."""
        ...


class SilentProfileDisplay:
    """Shows nothing."""

    def note(self, text: str) -> None:
        """See `ProfileDisplay.note`."""

    def progress(self, device: str, *, doing: str, n_done: int, n_total: int) -> None:
        """See `ProfileDisplay.progress`."""

    def close(self) -> None:
        """See `ProfileDisplay.close`."""


@dataclass
class ProfileResult:
    """What a run has added.

    Attributes:
        location: Of the profile.
        devices: That were measured.
        n_operators: Rows of operators added.
        n_models: Rows of whole models added.
        skipped: What could not be measured, and why.
        n_left: Measurements that the time budget left for another run.
    """

    location: str
    devices: list[str] = field(default_factory=list)
    n_operators: int = 0
    n_models: int = 0
    skipped: list[str] = field(default_factory=list)
    n_left: int = 0

    def to_json(self) -> dict[str, Any]:
        """The result as plain JSON values."""
        return {
            "location": self.location,
            "devices": self.devices,
            "operators_added": self.n_operators,
            "models_added": self.n_models,
            "skipped": self.skipped,
            "left": self.n_left,
        }
