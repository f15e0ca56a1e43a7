"""What a user may vary of a search benchmark."""

import math
from dataclasses import dataclass
from pathlib import Path

from falcon_ray.errors import InputError
from falcon_ray.studies.search.prices import EQUAL, RECORDED, SHUFFLED


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchStudyOptions:
    """How to run a study of searches; the defaults are what the README quotes.

    Attributes:
        tables: Tables of users, each with its YAML beside it.
        methods: Names; all when empty.
        n_seeds: Of every method that draws; None leaves each its own.
        budget: Trials of a search at most.
        batch_size: Trials that run at a time.
        noise_sd: Relative sd of noise on every metric.
        prices: "recorded", "equal" (every device costs the same), "shuffled-SEED" (devices
            exchange their prices), or the path of a YAML file with factors by value by dimension.
        permute_prior: Whether our priors are spoilt.
        n_jobs: Processes.
        output_dir: Where results are written.
        quick: Whether the study `quick` runs where none is named.
    """

    tables: tuple[Path, ...] = ()
    methods: tuple[str, ...] = ()
    n_seeds: int | None = None
    budget: int = 30
    batch_size: int = 1
    noise_sd: float = 0.0
    prices: str = RECORDED
    permute_prior: bool = False
    n_jobs: int = 2
    output_dir: Path = Path("runs/benchmark-search")
    quick: bool = False

    def __post_init__(self) -> None:
        counts = {"budget": self.budget, "batch size": self.batch_size, "jobs": self.n_jobs}
        if self.n_seeds is not None:
            counts["seeds"] = self.n_seeds
        for name, count in counts.items():
            if count < 1:
                raise InputError(f"{name} must be 1 or more, got {count}")
        if not 0 <= self.noise_sd < math.inf:
            raise InputError(f"noise must be a finite sd, not negative, got {self.noise_sd}")
        shuffled = self.prices.startswith(SHUFFLED)
        if shuffled and not self.prices.removeprefix(SHUFFLED).isdecimal():
            raise InputError(f"{self.prices}: give a seed, such as {SHUFFLED}1")
        named = shuffled or self.prices in {RECORDED, EQUAL}
        if not named and not Path(self.prices).is_file():
            raise InputError(
                f"prices are {RECORDED}, {EQUAL}, {SHUFFLED}SEED or a YAML file of factors; there "
                f"is no file {self.prices}"
            )
