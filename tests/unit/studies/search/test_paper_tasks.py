from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.observation import TrialStatus
from falcon_ray.studies.figure import Figure
from falcon_ray.studies.public_tables import DATA_DIR_VARIABLE
from falcon_ray.studies.search.paper import figures, table_facts
from falcon_ray.studies.search.paper_tasks import paper_table, paper_tasks, vote

BATCHES = (4, 8, 16)
GPUS = ("K80", "T4")


def rows(model: str, split: str, scores: list[float]) -> list[dict[str, object]]:
    """One score per batch size and GPU, the GPU varying fastest."""
    return [
        {
            "model": model,
            "split": split,
            "batch_size": batch,
            "cpu_cores": 1,
            "gpu_memory_gib": 0.8,
            "gpu_share_pct": 50,
            "gpu_type": gpu,
            "normalised_rps_per_budget": score,
        }
        for (batch, gpu), score in zip(product(BATCHES, GPUS), scores, strict=True)
    ]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three sources agree that batch 16 is best; the target runs out of memory once."""
    path = tmp_path / "paper_tables.parquet"
    table = [
        *rows("s1", "sources", [0.1, 0.1, 0.4, 0.4, 0.9, 0.8]),
        *rows("s2", "sources", [0.2, 0.1, 0.4, 0.5, 0.9, 0.8]),
        *rows("s3", "sources", [0.1, 0.2, 0.5, 0.4, 0.9, 0.8]),
        *rows("t", "targets", [0.0, 0.2, 0.4, 0.4, 0.93, 0.95]),
    ]
    pd.DataFrame(table).to_parquet(path)
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path))
    return path


@pytest.mark.usefixtures("published")
def test_a_target_is_searched_with_the_vote_of_the_sources_only() -> None:
    sources, (target,) = paper_tasks()
    assert [each.model for each in sources] == ["s1", "s2", "s3"]
    assert all(each.prior is None for each in sources)
    assert target.prior is not None
    mean = target.prior.experts[0].metrics["saturation_rps"].mean
    # batch 4 on a K80: log((0.1 * 0.2 * 0.1) ^ (1/3)); the target's own 0 has no part in it
    assert mean[0] == pytest.approx(np.log(0.002) / 3)
    assert dict(target.space.candidates[int(np.argmax(mean))])["batch_size"] == 16


@pytest.mark.usefixtures("published")
def test_a_row_without_a_rate_is_infeasible() -> None:
    _, (target,) = paper_tasks()
    assert [each.status for each in target.observations][:2] == [
        TrialStatus.INFEASIBLE,
        TrialStatus.MEASURED,
    ]
    # a normalised rate of 0.95 for a price of 1 an hour
    assert target.scores.max() == pytest.approx(0.95 * 3600)


def test_a_table_without_targets_is_refused(published: Path) -> None:
    table = paper_table()
    table[table["split"] == "sources"].to_parquet(published)
    with pytest.raises(InputError, match="has no 'targets'; run scripts/fetch_data"):
        paper_tasks()


def test_targets_must_list_the_sources_configurations(published: Path) -> None:
    paper_table().iloc[:-1].to_parquet(published)
    with pytest.raises(InputError, match="must list the same configurations"):
        paper_tasks()


def test_sources_that_disagree_make_the_vote_unsure() -> None:
    agreed = np.full((5, 4), 0.5)
    scores = np.hstack([agreed, [[0.1], [0.9], [0.5], [0.3], [0.5]]])
    metric = vote(scores).experts[0].metrics["saturation_rps"]
    residual_sd = np.asarray(metric.residual_sd)
    assert residual_sd[4] > 2 * residual_sd[0]


def test_what_no_source_could_run_is_expected_to_be_worst() -> None:
    scores = np.array([[0.5, np.nan, 0.1], [0.5, 0.0, 0.1], [0.5, np.nan, 0.1]])
    mean = vote(scores).experts[0].metrics["saturation_rps"].mean
    assert mean == pytest.approx(np.log([0.5, 0.1, 0.1]))


def test_a_vote_of_two_is_refused() -> None:
    with pytest.raises(InputError, match="three sources or more, got 2"):
        vote(np.ones((2, 4)))


@pytest.mark.usefixtures("published")
def test_facts_say_what_scores_depend_on() -> None:
    table = paper_table()
    table["normalised_rps_per_budget"] = table["batch_size"] / 16
    # one score per batch size: it explains everything, the GPU nothing
    varied = table.assign(
        normalised_rps_per_budget=table["normalised_rps_per_budget"]
        + np.where(table["gpu_type"] == "T4", 0.1, 0.0)
    )
    facts = table_facts(varied)
    # GPUs differ by 0.1: variance 0.05^2; batches 1/4, 1/2, 1 have the variance 7/72
    assert facts.gpu_share == pytest.approx(0.0025 / (0.0025 + 7 / 72))
    assert facts.batch_share == pytest.approx(1 - facts.gpu_share)
    # within a batch size all models rise from K80 to T4
    assert (facts.correlation_low, facts.correlation_high) == pytest.approx((1.0, 1.0))


@pytest.mark.usefixtures("published")
def test_figures_count_trials_by_both_rules_and_say_what_they_prove() -> None:
    found = {each.name: each for each in figures()}

    def value(rule: str, method: str) -> Figure:
        return found[f"paper's tables, {rule}, {method}: mean trials"]

    # The vote tries batch 16 on a K80 first: 0.93 is above 0.9 and within 5 % of 0.95.
    assert value("> 0.9", "vote of the sources").value == 1.0
    assert value("within 5 %", "vote of the sources").value == 1.0
    # Two of six are good: random search needs (6 + 1) / (2 + 1) = 2.3 on average.
    assert 1.5 < value("> 0.9", "random").value < 3.2
    assert value("> 0.9", "Falcon's released code").value == 5.9
    assert all("proves little" in each.note for each in found.values())
