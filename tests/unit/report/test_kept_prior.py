import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, Expert, ExpertMixture
from falcon_ray.report.kept_prior import PRIOR_NAME, read_prior, write_prior


def expert(name: str, weight: float) -> Expert:
    return Expert(
        name=name,
        weight=weight,
        metrics={
            "capacity_rps": ExpectedMetric(
                mean=np.array([1.5, -2.0]), offset_sd=0.2, residual_sd=np.array([0.1, 0.3])
            ),
            "floor_latency_ms": ExpectedMetric(
                mean=np.array([0.5, 0.0]), offset_sd=weight, residual_sd=0.25
            ),
        },
    )


PRIOR = ExpertMixture(
    experts=(expert("roofline", 0.25), expert("composition", 2.0)),
    log_memory_share=np.array([-1.0, 0.5]),
    operator_seconds={"conv2d (3x3)": np.array([0.1, 0.2]), "the rest": np.array([0.3, 0.4])},
)


def test_a_prior_survives_its_round_trip(tmp_path: Path) -> None:
    write_prior(tmp_path, PRIOR)
    after = read_prior(tmp_path)
    assert after is not None
    assert [(each.name, each.weight) for each in after.experts] == [
        ("roofline", 0.25),
        ("composition", 2.0),
    ]
    for before, each in zip(PRIOR.experts, after.experts, strict=True):
        assert list(each.metrics) == ["capacity_rps", "floor_latency_ms"]
        for name, expected in before.metrics.items():
            kept = each.metrics[name]
            assert kept.mean.tolist() == expected.mean.tolist()
            assert kept.offset_sd == expected.offset_sd
            assert np.array_equal(kept.residual_sd, expected.residual_sd)
    assert after.log_memory_share is not None
    assert after.log_memory_share.tolist() == [-1.0, 0.5]
    assert {name: each.tolist() for name, each in after.operator_seconds.items()} == {
        "conv2d (3x3)": [0.1, 0.2],
        "the rest": [0.3, 0.4],
    }
    assert [each.name for each in tmp_path.iterdir()] == [PRIOR_NAME]


def test_what_is_not_known_of_memory_and_operators_stays_unknown(tmp_path: Path) -> None:
    write_prior(tmp_path, ExpertMixture(experts=PRIOR.experts))
    after = read_prior(tmp_path)
    assert after is not None
    assert (after.log_memory_share, dict(after.operator_seconds)) == (None, {})


def test_a_search_without_a_prior_has_none(tmp_path: Path) -> None:
    assert read_prior(tmp_path) is None


def test_a_damaged_prior_is_said_in_one_line(tmp_path: Path) -> None:
    write_prior(tmp_path, PRIOR)
    path = tmp_path / PRIOR_NAME
    for content in (b"nothing of the kind", path.read_bytes()[:-100]):
        path.write_bytes(content)
        with pytest.raises(InputError, match="is damaged") as caught:
            read_prior(tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["residual_sd|roofline|capacity_rps", "weight|roofline"])
def test_a_prior_that_lacks_an_array_is_damaged(tmp_path: Path, lost: str) -> None:
    write_prior(tmp_path, PRIOR)
    path = tmp_path / PRIOR_NAME
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if name != lost}
    np.savez(path, **arrays)
    with pytest.raises(InputError, match=f"is damaged: '{re.escape(lost)}'"):
        read_prior(tmp_path)


def test_the_prior_of_an_older_version_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / PRIOR_NAME, saturation_rps=np.zeros(2), fits=np.ones(2))
    with pytest.raises(InputError, match="was written by another version of falcon_ray"):
        read_prior(tmp_path)


def test_a_name_that_would_be_read_as_two_is_refused(tmp_path: Path) -> None:
    odd = replace(PRIOR, experts=(expert("a|b", 1.0),))
    with pytest.raises(InputError, match=r"'a\|b' cannot be kept"):
        write_prior(tmp_path, odd)
