"""Searches for the best device, precision, layout, compiler and version for one vision model.

One task per model of the public table, with what experts expect of it that have not seen its
family. The batch size is no dimension: the publishers chose one per model and set-up. The module
knows no optimizer.
"""

from collections import defaultdict
from collections.abc import Mapping
from itertools import zip_longest

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.dimension import Value
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.studies.family_constants import operator_fits, streaming_constants
from falcon_ray.studies.knowledge.vision import related_root
from falcon_ray.studies.public_tables import public_table
from falcon_ray.studies.search.expert_errors import (
    expected_metric,
    learned_errors,
    learned_weights,
)
from falcon_ray.studies.search.vision_prior import FoldKnowledge, fold_knowledge, folds_of
from falcon_ray.studies.search.vision_table import IndexArray, VisionTable, same_networks
from falcon_ray.studies.vision_runs import DEVICE_NAMES, VisionRuns, vision_runs

METRIC = "saturation_rps"
_LEAST_SETUPS = 8
_CONSTANT_WEIGHT = 0.1
_LEAST_SHARE = 1e-3
"""Of a model's time: constants of zero would make an operator free, and its curves infinite."""


def vision_tasks(
    *,
    n_models: int | None = None,
    prices: Mapping[str, float] | None = None,
    n_folds: int = 10,
    related: bool = False,
    with_priors: bool = True,
) -> list[ReplayTask]:
    """One task per vision model that ran on eight set-ups or more.

    Args:
        n_models: Only so many, spread over families; all of them where it is left out.
        prices: USD per hour by device name, instead of the table's; devices may be left out.
        n_folds: Folds that families are dealt into; those of one fold are held out together.
        related: Whether families whose names share a root are held out together.
        with_priors: Whether to fit experts; without them a task has no prior.

    Raises:
        InputError: A public table is missing, or an argument is out of range.
    """
    table = VisionTable.of_runs(same_networks(vision_runs()))
    usd_per_hour = setup_prices(table, prices or {})
    measured = np.isfinite(table.log_rates)
    chosen = spread(table, measured.sum(axis=1) >= _LEAST_SETUPS, n_models)
    if not with_priors:
        return [_task(table, int(row), usd_per_hour, None) for row in chosen]
    groups = [related_root(each) if related else each for each in table.families]
    folds = folds_of(groups, n_folds=n_folds)
    priors: dict[int, ExpertMixture] = {}
    streaming = streaming_constants(operator_fits("eager"))
    for known in fold_knowledge(table, folds, streaming):
        rows = chosen[known.held_out[chosen]]
        priors |= _mixtures(table, known, rows, usd_per_hour)
    return [_task(table, int(row), usd_per_hour, priors[int(row)]) for row in chosen]


def setup_prices(table: VisionTable, prices: Mapping[str, float]) -> FloatArray:
    """USD per hour of each set-up, shape (s,): those given, else those of the public table.

    Raises:
        InputError: A price is not positive, or names a device that no set-up has.
    """
    columns = pd.read_parquet(
        public_table("vision_throughput.parquet"), columns=["device", "usd_per_hour"]
    )
    published = {
        DEVICE_NAMES[str(name)]: float(price)
        for name, price in columns.drop_duplicates("device").itertuples(index=False)
    }
    unknown = sorted(set(prices) - set(published))
    if unknown:
        raise InputError(f"no device {unknown[0]!r}; the table has {', '.join(sorted(published))}")
    if not all(np.isfinite(each) and each > 0 for each in prices.values()):
        raise InputError(f"prices must be positive USD per hour, got {dict(prices)}")
    by_device = published | dict(prices)
    return np.array([by_device[each.device.name] for each in table.setups])


def spread(table: VisionTable, eligible: NDArray[np.bool_], n_models: int | None) -> IndexArray:
    """Positions of models, in the table's order: one of each family before a second of any.

    Of the last round, evenly spaced families take part.

    Raises:
        InputError: No model is eligible, or `n_models` is not positive.
    """
    rows = np.flatnonzero(eligible)
    if not rows.size or (n_models is not None and n_models < 1):
        raise InputError(
            f"n_models must be 1 or more, got {n_models!r}, of {rows.size} models with "
            f"{_LEAST_SETUPS} set-ups"
        )
    if n_models is None or n_models >= rows.size:
        return rows
    by_family: dict[str, list[int]] = defaultdict(list)
    for row in rows.tolist():
        by_family[table.families[row]].append(row)
    chosen: list[int] = []
    for each in zip_longest(*(by_family[name] for name in sorted(by_family))):
        turn = [row for row in each if row is not None]
        room = min(n_models - len(chosen), len(turn))
        # Middles of equal parts, so that a few families are not the first of the alphabet.
        places = (np.arange(room) + 0.5) * len(turn) / max(room, 1)
        chosen += [turn[int(place)] for place in places]
    return np.array(sorted(chosen), dtype=np.intp)


def _mixtures(
    table: VisionTable, known: FoldKnowledge, rows: IndexArray, usd_per_hour: FloatArray
) -> dict[int, ExpertMixture]:
    """Priors of some models of a fold, by their positions."""
    seen = ~known.held_out
    measured = table.log_rates[seen]
    log_prices = np.log(usd_per_hour)
    level = float(np.nanmean(np.nanmedian(measured - log_prices, axis=1)))
    constant = np.broadcast_to(log_prices + level, table.log_rates.shape)
    expected = {name: each[seen] for name, each in known.log_rates.items()}
    errors = {name: learned_errors(measured, each) for name, each in expected.items()}
    constant_error = learned_errors(measured, constant[seen], same_for_all=True)
    numbers = {name: i for i, name in enumerate(sorted(set(table.families)))}
    families = np.array([numbers[each] for each in table.families], dtype=np.intp)[seen]
    weights = learned_weights(measured, expected, errors, families=families)
    found: dict[int, ExpertMixture] = {}
    for row in rows.tolist():
        columns = np.flatnonzero(np.isfinite(table.log_rates[row]))
        metrics = {
            name: expected_metric(each[row, columns], errors[name], columns)
            for name, each in known.log_rates.items()
        }
        experts = [
            Expert(
                name=name,
                weight=(1 - _CONSTANT_WEIGHT) * weights[name],
                metrics={METRIC: metric},
            )
            for name, metric in metrics.items()
        ]
        flat = ExpectedMetric(
            mean=constant[row, columns],
            offset_sd=constant_error[0],
            residual_sd=float(constant_error[1][0]),
        )
        experts.append(Expert(name="constant", weight=_CONSTANT_WEIGHT, metrics={METRIC: flat}))
        found[row] = ExpertMixture(
            experts=tuple(experts),
            operator_seconds=_shown_seconds(known.seconds, row, columns),
        )
    return found


def _shown_seconds(
    seconds: Mapping[str, FloatArray], row: int, columns: IndexArray
) -> dict[str, FloatArray]:
    """Seconds per image of the families that a model has, shapes (n,)."""
    own = {name: np.nan_to_num(each[row, columns]) for name, each in seconds.items()}
    least = _LEAST_SHARE * np.sum(list(own.values()), axis=0)
    return {name: np.maximum(each, least) for name, each in own.items() if each.any()}


def _task(
    table: VisionTable, row: int, usd_per_hour: FloatArray, prior: ExpertMixture | None
) -> ReplayTask:
    columns = np.flatnonzero(np.isfinite(table.log_rates[row]))
    space = ListedSpace.of_rows([_configuration(table.setups[j]) for j in columns])
    return ReplayTask(
        name=f"vision {table.models[row]}",
        model=table.models[row],
        family=table.families[row],
        space=space,
        objective=Objective(),
        usd_per_hour=usd_per_hour[columns],
        observations=tuple(
            Observation(
                configuration=configuration,
                status=TrialStatus.MEASURED,
                measurement=Measurement(saturation_rps=float(np.exp(table.log_rates[row, j]))),
            )
            for configuration, j in zip(space.candidates, columns, strict=True)
        ),
        prior=prior,
    )


def _configuration(runs: VisionRuns) -> dict[str, Value]:
    return {
        "device": runs.device.name,
        "dtype": runs.source_dtype,
        "layout": runs.layout,
        "compiler": "inductor" if runs.mode == "compiled" else "none",
        "torch": _version(runs.torch),
    }


def _version(published: str) -> str:
    """A version as people write it: "240" is 2.4.0, "113" is 1.13."""
    return f"1.{published[1:]}" if published[0] == "1" else ".".join(published)
