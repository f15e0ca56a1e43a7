"""The tables that were published with the Falcon paper, as searches: a labelled reproduction.

18 source models are known, 12 target models are searched, as in the paper. The score is the
table's normalised rate per budget, so every candidate costs 1. A target's relatives may be among
the sources, such as ResNet-152 and its second version: as in the paper, nothing is held out beside
the target itself. What these tables prove, and what not, `paper` says.

Notation: k sources, n configurations; logs are natural.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.studies.public_tables import public_table
from falcon_ray.studies.search.expert_errors import learned_errors

METRIC = "saturation_rps"
DIMENSIONS = ("batch_size", "cpu_cores", "gpu_memory_gib", "gpu_share_pct", "gpu_type")
SCORE = "normalised_rps_per_budget"
_CONSTANT_WEIGHT = 0.1


def paper_tasks() -> tuple[list[ReplayTask], list[ReplayTask]]:
    """The source and the target models, each in the order of their names.

    Returns:
        Sources without priors; targets with the vote of the sources and a constant.

    Raises:
        InputError: The public table is missing, or lacks a model's configuration.
    """
    scores = {split: _scores(rows) for split, rows in paper_table().groupby("split")}
    try:
        sources, targets = scores["sources"], scores["targets"]
    except KeyError as error:
        raise InputError(f"paper_tables.parquet has no {error}; run scripts/fetch_data") from None
    if not sources.index.equals(targets.index):
        raise InputError(
            "sources and targets of paper_tables.parquet must list the same configurations; "
            "run scripts/fetch_data"
        )
    space = ListedSpace.of_rows(
        [dict(zip(DIMENSIONS, values, strict=True)) for values in sources.index.tolist()]
    )
    prior = vote(sources.to_numpy(dtype=np.float64).T)
    return (
        [_task(space, str(name), sources[name].to_numpy(), None) for name in sources],
        [_task(space, str(name), targets[name].to_numpy(), prior) for name in targets],
    )


def paper_table() -> pd.DataFrame:
    """The 30 tables, one row per model and configuration.

    Raises:
        InputError: The public table is missing.
    """
    return pd.read_parquet(public_table("paper_tables.parquet"))


def vote(scores: FloatArray) -> ExpertMixture:
    """What other models' scores say of every configuration.

    The vote's errors are those of each source against the others, whose spread at a
    configuration is the sd there.

    Args:
        scores: Of the k sources, shape (k, n); a configuration that one of them could not run
            is NaN or 0 there, and expected to be as bad as the worst where none could.

    Raises:
        InputError: There are fewer than three sources.
    """
    if len(scores) < 3:
        raise InputError(f"a vote needs three sources or more, got {len(scores)}")
    ran = scores > 0
    logs = np.log(np.where(ran, scores, 1.0))
    mean = _mean(logs.sum(axis=0), ran.sum(axis=0))
    others = _mean(logs.sum(axis=0) - logs, ran.sum(axis=0) - ran)
    measured = np.where(ran, logs, np.nan)
    level = float(mean.mean())
    errors = {
        "vote": learned_errors(measured, others),
        "constant": learned_errors(measured, np.full(logs.shape, level), same_for_all=True),
    }
    means = {"vote": mean, "constant": np.full(mean.shape, level)}
    weights: Mapping[str, float] = {"vote": 1 - _CONSTANT_WEIGHT, "constant": _CONSTANT_WEIGHT}
    return ExpertMixture(
        experts=tuple(
            Expert(
                name=name,
                weight=weights[name],
                metrics={
                    METRIC: ExpectedMetric(
                        mean=means[name], offset_sd=offset_sd, residual_sd=residual_sd
                    )
                },
            )
            for name, (offset_sd, residual_sd) in errors.items()
        )
    )


def _mean(total: FloatArray, count: FloatArray) -> FloatArray:
    """Means of logs, and the least of them where nothing ran."""
    found = np.divide(total, count, out=np.full(total.shape, np.inf), where=count > 0)
    return np.where(count > 0, found, found.min())


def _scores(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per configuration, one column per model; repeats count by their median."""
    table = rows.groupby([*DIMENSIONS, "model"])[SCORE].median().unstack("model")
    return table.sort_index()


def _task(
    space: ListedSpace, model: str, scores: Sequence[float], prior: ExpertMixture | None
) -> ReplayTask:
    return ReplayTask(
        name=f"paper {model}",
        model=model,
        family=model,
        space=space,
        objective=Objective(),
        usd_per_hour=np.ones(len(space)),
        observations=tuple(
            Observation(
                configuration=configuration,
                status=TrialStatus.MEASURED,
                measurement=Measurement(saturation_rps=float(score)),
            )
            if score > 0
            else Observation(
                configuration=configuration,
                status=TrialStatus.INFEASIBLE,
                reason="the table has no rate for it",
            )
            for configuration, score in zip(space.candidates, scores, strict=True)
        ),
        prior=prior,
    )
