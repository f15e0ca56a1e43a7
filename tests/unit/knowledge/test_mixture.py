from collections.abc import Mapping

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.space.configuration import FloatArray


def metric(
    mean: list[float] | FloatArray, residual_sd: float | FloatArray = 0.2, offset_sd: float = 0.3
) -> ExpectedMetric:
    return ExpectedMetric(
        mean=np.array(mean, dtype=np.float64), offset_sd=offset_sd, residual_sd=residual_sd
    )


def expert(name: str = "roofline", *, n: int = 3, weight: float = 1.0) -> Expert:
    return Expert(name=name, weight=weight, metrics={"tpot_ms": metric(np.zeros(n))})


def test_a_mixture_says_of_how_many_candidates_it_speaks() -> None:
    mixture = ExpertMixture(
        experts=(expert("roofline"), expert("composition")),
        log_memory_share=np.zeros(3),
        operator_seconds={"attention": np.ones(3)},
    )
    assert mixture.n == 3


def test_memory_and_operators_may_be_unknown() -> None:
    mixture = ExpertMixture(experts=(expert(),))
    assert mixture.log_memory_share is None
    assert mixture.operator_seconds == {}


def test_errors_may_differ_between_candidates_or_be_zero() -> None:
    assert metric([0, 0], np.array([0.1, 0.0]), 0.0).offset_sd == 0.0


@pytest.mark.parametrize(
    ("mean", "residual_sd", "offset_sd", "problem"),
    [
        ([0.0, np.nan, np.inf], 0.2, 0.3, "finite logarithms; 2 of 3 are not"),
        ([0.0, -np.inf], 0.2, 0.3, "finite logarithms; 1 of 2 are not"),
        (np.zeros((2, 2)), 0.2, 0.3, r"got the shapes \(2, 2\) and \(\)"),
        ([0.0, 0.0], np.ones(3), 0.3, r"got the shapes \(2,\) and \(3,\)"),
        ([0.0], -0.1, 0.3, "errors must be finite and not negative"),
        ([0.0], np.array([np.nan]), 0.3, "errors must be finite and not negative"),
        ([0.0], 0.2, -0.3, "errors must be finite and not negative"),
        ([0.0], 0.2, np.inf, "errors must be finite and not negative"),
    ],
)
def test_expectations_that_cannot_be_are_refused(
    mean: list[float] | FloatArray, residual_sd: float | FloatArray, offset_sd: float, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        metric(mean, residual_sd, offset_sd)


@pytest.mark.parametrize("weight", [0.0, -1.0, np.nan, np.inf])
def test_a_weight_that_is_not_positive_is_refused_with_the_experts_name(weight: float) -> None:
    with pytest.raises(InputError, match=f"weight of roofline must be positive, got {weight}"):
        expert(weight=weight)


def test_a_mixture_without_experts_is_refused() -> None:
    with pytest.raises(InputError, match="at least one expert"):
        ExpertMixture(experts=())


@pytest.mark.parametrize(
    ("experts", "memory", "operators"),
    [
        ((expert(), expert(n=2)), None, {}),
        ((expert(),), np.zeros(2), {}),
        ((expert(),), None, {"attention": np.ones(2)}),
    ],
    ids=["experts", "memory", "operators"],
)
def test_parts_that_speak_of_different_candidates_are_refused(
    experts: tuple[Expert, ...], memory: FloatArray | None, operators: Mapping[str, FloatArray]
) -> None:
    with pytest.raises(InputError, match=r"the same candidates, got .*\(2,\), \(3,\)"):
        ExpertMixture(experts=experts, log_memory_share=memory, operator_seconds=operators)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_memory_and_seconds_that_are_not_finite_are_refused(bad: float) -> None:
    one_bad = np.array([1.0, bad, 1.0])
    with pytest.raises(InputError, match="memory shares and seconds of operators must be finite"):
        ExpertMixture(experts=(expert(),), log_memory_share=one_bad)
    with pytest.raises(InputError, match="memory shares and seconds of operators must be finite"):
        ExpertMixture(experts=(expert(),), operator_seconds={"attention": one_bad})


def test_an_expert_that_predicts_nothing_is_refused() -> None:
    with pytest.raises(InputError):
        ExpertMixture(experts=(Expert(name="mute", weight=1.0, metrics={}),))
