"""Prices, priors and methods can be varied, and nothing else changes with them."""

from pathlib import Path

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.dimension import Value
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.objective import Objective
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from falcon_ray.studies.search.ablation import CONSTANT, only, permuted
from falcon_ray.studies.search.comparison import Method
from falcon_ray.studies.search.methods import installed, methods
from falcon_ray.studies.search.options import SearchStudyOptions
from falcon_ray.studies.search.prices import repriced
from tests.unit.optimizers.recorded import by_batch

USD: dict[str, float] = {"L4": 1.0, "A100": 4.0, "H100": 8.0}
PRIOR = ExpertMixture(
    experts=(
        Expert(
            name="roofline",
            weight=1.0,
            metrics={
                "saturation_rps": ExpectedMetric(
                    mean=np.arange(6.0), offset_sd=0.1, residual_sd=np.arange(6.0)
                )
            },
        ),
        Expert(
            name=CONSTANT,
            weight=0.1,
            metrics={
                "saturation_rps": ExpectedMetric(
                    mean=np.arange(6.0) * 10, offset_sd=1.0, residual_sd=1.0
                )
            },
        ),
    ),
    log_memory_share=np.arange(6.0) / 10,
    operator_seconds={"linear": 1 + np.arange(6.0)},
)


def priced() -> ReplayTask:
    """Three devices, one or two of each; the price is that of one times how many."""
    rows: list[dict[str, Value]] = [{"gpu_type": g, "n_gpus": n} for g in USD for n in (1, 2)]
    space = ListedSpace.of_rows(rows)
    return ReplayTask(
        name="t",
        model="m",
        family="f",
        space=space,
        objective=Objective(),
        usd_per_hour=np.array([USD[g] * n for g in USD for n in (1, 2)]),
        observations=tuple(
            Observation(
                configuration=each,
                status=TrialStatus.MEASURED,
                measurement=Measurement(saturation_rps=1.0),
            )
            for each in space.candidates
        ),
    )


def test_equal_prices_leave_only_the_number_of_devices() -> None:
    (task,) = repriced([priced()], "equal")
    middle = (1 * 4 * 8) ** (1 / 3)  # the geometric mean keeps the level
    assert task.usd_per_hour == pytest.approx(np.array([1, 2, 1, 2, 1, 2]) * middle)
    assert task.scores.argmax() in (0, 2, 4)  # scores follow prices


def test_shuffled_prices_are_the_same_prices_of_other_devices() -> None:
    seen: set[tuple[float, ...]] = set()
    for seed in range(8):
        (task,) = repriced([priced()], f"shuffled-{seed}")
        one = task.usd_per_hour[::2]
        assert task.usd_per_hour[1::2] == pytest.approx(2 * one)
        assert sorted(one) == pytest.approx([1, 4, 8])
        seen.add(tuple(one.round(6)))
    assert len(seen) > 1


def test_factors_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "factors.yaml"
    file.write_text("gpu_type: {L4: 3, H100: 0.5}\n", encoding="utf-8")
    (task,) = repriced([priced()], str(file))
    assert task.usd_per_hour.tolist() == [3, 6, 4, 8, 4, 8]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gpu_type: {L4: -1}", "the factor of L4 must be positive, got -1"),
        ("[1]", "must map dimensions to values to factors"),
        ("region: {eu: 2}", "no task has the dimension region"),
        ("a: {", "is no YAML"),
    ],
)
def test_a_file_that_holds_no_factors_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "factors.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=problem):
        repriced([priced()], str(file))


def test_equal_prices_need_devices() -> None:
    with pytest.raises(InputError, match="no task has a dimension gpu_type or device"):
        repriced([by_batch([1.0])], "equal")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"budget": 0}, "budget must be 1 or more, got 0"),
        ({"n_seeds": 0}, "seeds must be 1 or more"),
        ({"noise_sd": -1.0}, "noise must be a finite sd"),
        ({"prices": "shuffled-x"}, "give a seed, such as shuffled-1"),
        ({"prices": "cheap"}, "there is no file cheap"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        SearchStudyOptions(**options)  # pyright: ignore[reportArgumentType]


def test_a_permuted_prior_moves_everything_but_the_constant_alike() -> None:
    found = permuted(PRIOR, seed=1)
    roofline, constant = (each.metrics["saturation_rps"] for each in found.experts)
    order = roofline.mean
    assert sorted(order) == list(range(6))
    assert order.tolist() != list(range(6))
    assert np.array_equal(roofline.residual_sd, order)
    assert found.log_memory_share is not None
    assert found.log_memory_share == pytest.approx(order / 10)
    assert found.operator_seconds["linear"] == pytest.approx(1 + order)
    assert constant.mean.tolist() == [0, 10, 20, 30, 40, 50]


def test_one_expert_alone_keeps_memory_and_operators() -> None:
    found = only(PRIOR, "roofline")
    assert [each.name for each in found.experts] == ["roofline"]
    assert found.log_memory_share is PRIOR.log_memory_share
    with pytest.raises(InputError, match="no expert 'oracle'; the prior has roofline, constant"):
        only(PRIOR, "oracle")


def test_every_expert_can_be_a_method_of_its_own() -> None:
    names = [each.name for each in methods(experts=["roofline"])]
    assert "falcon (expert roofline only)" in names
    assert len(set(names)) == len(names)


def test_seeds_are_for_every_method_but_the_one_without_luck() -> None:
    found = {each.name: each.n_seeds for each in methods(n_seeds=4)}
    assert found.pop("popularity") == 1
    assert set(found.values()) == {4}


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match="no method 'magic'; known are falcon; falcon"):
        methods(["magic"])


def test_what_is_not_installed_is_said_and_left_out() -> None:
    plain = methods(["random"])
    absent = Method(name="peer", prepare=plain[0].prepare, package="no_such_package")
    here, said = installed([*plain, absent])
    assert here == plain
    assert said.startswith("not installed and left out: peer (no_such_package)")
    assert installed(plain) == (plain, "")
