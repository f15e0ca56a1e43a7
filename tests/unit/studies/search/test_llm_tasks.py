import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.llm.experts import EXPERTS
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.observation import TrialStatus
from falcon_ray.studies.public_tables import public_table
from falcon_ray.studies.search.llm_tasks import (
    DIMENSIONS,
    llm_experts,
    llm_prior,
    llm_task,
    llm_task_rows,
    llm_tasks,
)

try:
    public_table("llm_serving.parquet")
    public_table("llm_large_space.parquet")
except InputError as error:
    pytest.skip(str(error), allow_module_level=True)

FREE = "a|Qwen/Qwen3-32B|1024x512|none"
BOUNDED = "a|Qwen/Qwen3-32B|1024x512|tpot20"
LARGE = "e|openai/gpt-oss-120b|none"


@pytest.fixture
def free() -> ReplayTask:
    return llm_task("main", FREE, prior=False)


@pytest.fixture(scope="module")
def large() -> ReplayTask:
    return llm_task("large", LARGE, prior=False)


def test_sets_have_as_many_tasks_as_the_tables() -> None:
    counts = [llm_task_rows(part)["task"].nunique() for part in ("main", "small", "large")]
    assert counts == [37, 39, 6]


def test_candidates_are_the_rows_of_the_task(free: ReplayTask) -> None:
    rows = llm_task_rows("main").query("task == @FREE")
    assert isinstance(free.space, ListedSpace)
    assert [each["concurrency"] for each in free.space.candidates] == rows["concurrency"].tolist()
    assert {each.name for each in free.space.dimensions} <= set(DIMENSIONS.values())


def test_dimensions_without_a_choice_are_left_out(free: ReplayTask) -> None:
    assert all(len(each.values) > 1 for each in free.space.dimensions)
    assert "gpu_type" not in {each.name for each in free.space.dimensions}  # H100 only


def test_scores_are_the_tables_requests_per_dollar(free: ReplayTask) -> None:
    rows = llm_task_rows("main").query("task == @FREE")
    np.testing.assert_allclose(free.scores, rows["requests_per_dollar"], rtol=5e-3)


def test_a_service_level_zeroes_what_misses_it() -> None:
    task = llm_task("main", BOUNDED, prior=False)
    rows = llm_task_rows("main").query("task == @BOUNDED")
    assert dict(task.objective.limits) == {"ttft_ms": 5000.0, "tpot_ms": 20.0}
    np.testing.assert_array_equal(task.scores > 0, rows["feasible"])


def test_other_prices_change_scores_in_proportion() -> None:
    # The table's price of an H100 is 6.88 USD per hour.
    plain, half = (
        llm_task("main", FREE, prior=False, prices=prices) for prices in (None, {"H100": 3.44})
    )
    np.testing.assert_allclose(half.scores, 2 * plain.scores)


def test_a_gpu_without_a_price_is_named() -> None:
    with pytest.raises(InputError, match="price is missing for H100"):
        llm_task("main", FREE, prior=False, prices={"B200": 5.0})


def test_an_unknown_set_or_task_is_named() -> None:
    with pytest.raises(InputError, match="'tiny' is none of main, small, large"):
        llm_tasks(("tiny",))
    with pytest.raises(InputError, match="no task 'nothing'"):
        llm_task("main", "nothing", prior=False)


def test_running_out_of_memory_is_a_fact_about_the_configuration(large: ReplayTask) -> None:
    rows = llm_task_rows("large").query("task == @LARGE")
    out = [each.status is TrialStatus.INFEASIBLE for each in large.observations]
    assert out == (rows["status"] == "oom").tolist()
    assert {each.reason for each in large.observations} == {"", "out of memory"}
    assert len(large.space) == 1129


def test_attention_divided_by_requests_counts_its_gpus(large: ReplayTask) -> None:
    rows = llm_task_rows("large").query("task == @LARGE")
    for configuration, layout in zip(large.space.candidates, rows["layout"], strict=True):
        expected = configuration["n_gpus"] if layout == "dpep" else 1
        assert configuration["attention_dp"] == expected


@pytest.mark.slow
def test_priors_are_made_without_the_family_and_once() -> None:
    experts = llm_experts("gptoss")
    assert llm_experts("gptoss") is experts
    rows = llm_task_rows("large").query("task == @LARGE")
    prior = llm_prior("openai/gpt-oss-120b", rows, without="gptoss")
    assert prior.n == 1129
    assert tuple(each.name for each in prior.experts) == EXPERTS
    assert prior.log_memory_share is not None
    told = (prior.log_memory_share > 0) == (rows["status"] == "oom").to_numpy()
    assert told.mean() > 0.9
