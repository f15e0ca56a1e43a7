import io

import numpy as np
import pytest
from rich.console import Console

from falcon_ray.knowledge.curves.resource_curve import CurveSubject, curve_over
from falcon_ray.report.estimate import (
    Estimate,
    Expected,
    ExpectedConfiguration,
    ExpectedOperator,
    OperatorPart,
)
from falcon_ray.report.estimate_terminal import print_estimate
from falcon_ray.space.configuration import Configuration


def expected(device: str, batch_size: int, score: float) -> ExpectedConfiguration:
    return ExpectedConfiguration(
        configuration=Configuration({"gpu_type": device, "batch_size": batch_size}),
        device=device,
        usd_per_hour=0.5,
        requests_per_dollar=Expected(score, 0.5 * score, 2 * score),
        metrics={"saturation_rps": Expected(score / 7200, 1.0, 2.0)},
        memory_gib=1.25,
        probability_fits=1.0,
    )


def operator(name: str, share: float) -> ExpectedOperator:
    batches = np.array([1.0, 2.0, 4.0, 8.0])
    curve = curve_over(
        "batch_size",
        batches,
        0.1 + 0.0 * batches,  # a launch, whatever the batch: throughput grows with it
        subject=CurveSubject(operator=name, device="L4"),
    )
    return ExpectedOperator(name=name, detail="128 x 8 to 4", calls=2, share=share, curves=(curve,))


def estimate(n_operators: int = 2) -> Estimate:
    best = expected("L4", 8, 2e6)
    return Estimate(
        target="shop.py:ranker",
        model="1 M parameters",
        n_candidates=1234,
        best_by_device=(best, expected("T4", 4, 9000.0)),
        top=(best,),
        operators=OperatorPart(
            point="L4 in float32 at batch 8",
            operators=tuple(operator(f"op{i}", 0.9 / n_operators) for i in range(n_operators)),
            n_others=3,
            others_share=0.04,
            host_share=0.06,
            basis="profiled shapes",
        ),
        unfit=("T4, float32: from batch 64 on (20.0 GiB)",),
        warnings=("nobody measured these operators there: roll" + 9 * ", another_operator",),
        knowledge=("own: measured here",),
    )


def printed(shown: Estimate) -> str:
    out = io.StringIO()
    print_estimate(Console(file=out, width=80, highlight=False), shown)
    return out.getvalue()


def test_the_first_sentence_names_the_best_configuration_and_its_interval() -> None:
    sentence = " ".join(printed(estimate()).split())
    assert sentence.startswith("Expected best of 1,234 configurations, without a trial")
    assert "Serve's own path: L4 batch_size=8, 2.0M" in sentence
    assert "2.0M requests per dollar (80 %: 1.0M-4.0M)" in sentence


def test_devices_operators_and_what_is_not_known_stand_below() -> None:
    text = printed(estimate())
    for words in ("T4", "op0", "128 x 8 to 4", "45.0%", "3 others", "6.0%", "roll", "batch 64"):
        assert words in text
    assert "convex ↑" in text


def test_no_line_is_wider_than_the_terminal() -> None:
    assert max(len(line.rstrip()) for line in printed(estimate()).splitlines()) <= 80


def test_many_key_operators_are_summed_up() -> None:
    text = printed(estimate(n_operators=20))
    assert "8 more key operators" in text  # of 20, 12 are shown
    assert "36.0%" in text  # 8 x 0.9 / 20


def test_where_nothing_works_it_says_so() -> None:
    nothing = Estimate(
        target="shop.py:ranker",
        model="1 M parameters",
        n_candidates=12,
        best_by_device=(),
        top=(),
        operators=None,
        unfit=(),
        warnings=(),
        knowledge=(),
    )
    assert "None of 12 configurations is expected to work" in printed(nothing)


def test_an_interval_is_symmetric_in_logs() -> None:
    found = Expected.of_log(np.log(10.0), np.log(2.0))
    assert (found.median, found.low, found.high) == pytest.approx((10, 5, 20))
    assert found.times(3.0).high == pytest.approx(60)
