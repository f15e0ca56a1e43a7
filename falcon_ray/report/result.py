"""What a finished search hands to Python code."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from falcon_ray.errors import InputError
from falcon_ray.report.contender import Standing
from falcon_ray.report.export import HOST, PORT, serve_config, write_export
from falcon_ray.report.files import trials_csv
from falcon_ray.report.nothing_feasible import NothingFeasible
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import SearchRecord, TrialRecord

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class SearchResult:
    """The journal of a search, and what follows from it.

    Attributes:
        directory: The run directory.
        record: Everything that the journal says.
    """

    directory: Path
    record: SearchRecord

    @property
    def best(self) -> Recommendation | None:
        """What to deploy, or None where no trial was feasible."""
        found = recommend(self.record)
        return found if isinstance(found, Recommendation) else None

    @property
    def nothing_feasible(self) -> NothingFeasible | None:
        """Why there is nothing to deploy, or None where there is something."""
        found = recommend(self.record)
        return found if isinstance(found, NothingFeasible) else None

    @property
    def is_deployable(self) -> bool:
        """Whether there is a recommendation that did not fail when it was measured again."""
        best = self.best
        return best is not None and best.standing is not Standing.NOT_REPRODUCED

    @property
    def is_emulated(self) -> bool:
        """Whether its GPUs were emulated: nothing was measured on one."""
        return self.record.header.emulated

    @property
    def exports_itself(self) -> bool:
        """Whether the search writes its Serve config unasked: deployable, and not emulated."""
        return self.is_deployable and not self.is_emulated

    @property
    def trials(self) -> tuple[TrialRecord, ...]:
        """Every trial that ended, in order."""
        return self.record.trials

    def to_dataframe(self) -> "pd.DataFrame":
        """One row per trial, the columns of `trials.csv`."""
        import pandas as pd  # noqa: PLC0415 - slow to import, and only needed here

        return pd.read_csv(io.StringIO(trials_csv(self.record)))

    def export(self, path: str | Path, *, allow_emulated: bool = False) -> Path:
        """Write the recommendation as a Serve config file, for `serve run` or `serve deploy`.

        Args:
            path: The file.
            allow_emulated: Whether to write it although its numbers were only predicted. The file
                deploys the real model and says so.

        Raises:
            InputError: There is nothing to deploy, or only what failed when it was measured
                again, or GPUs were emulated, or the file cannot be written.
        """
        if self.is_emulated and not allow_emulated:
            raise InputError(
                f"search {self.record.header.search_id} ran on emulated GPUs: its numbers are "
                "predicted, not measured; search on real ones, or give --allow-emulated "
                "(allow_emulated=True) to export it all the same"
            )
        found = recommend(self.record)
        if isinstance(found, NothingFeasible):
            raise InputError(f"there is nothing to export: {found.sentence}")
        if found.standing is Standing.NOT_REPRODUCED:
            raise InputError(f"nothing was confirmed that could be exported: {found.sentence}")
        serve: dict[str, Any] = self.record.header.settings["serve"]  # pyright: ignore[reportAssignmentType]
        example = self.directory / "example_request.npz"
        ask = f"curl http://{HOST}:{PORT}/"
        if example.is_file():
            ask += f" --data-binary @{example.name}"
        target = Path(path)
        write_export(
            target,
            serve_config(
                found,
                name=serve["name"],
                import_path=serve["import_path"],
                arguments={**serve["arguments"], "configuration": dict(found.configuration)},
                search_id=self.record.header.search_id,
                file_name=target.name,
                request_command=ask,
                emulated=self.is_emulated,
            ),
        )
        return target
