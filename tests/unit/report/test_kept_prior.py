from pathlib import Path

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.report.kept_prior import PRIOR_NAME, KeptPrior, read_prior, write_prior


def test_a_prior_survives_its_round_trip(tmp_path: Path) -> None:
    before = KeptPrior({"saturation_rps": np.array([1.5, -2.0])}, np.array([1.0, 0.25]))
    write_prior(tmp_path, before)
    after = read_prior(tmp_path)
    assert after is not None
    assert after.means["saturation_rps"].tolist() == [1.5, -2.0]
    assert after.fits.tolist() == [1.0, 0.25]
    assert [each.name for each in tmp_path.iterdir()] == [PRIOR_NAME]


def test_a_search_without_a_prior_has_none(tmp_path: Path) -> None:
    assert read_prior(tmp_path) is None


def test_a_damaged_prior_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / PRIOR_NAME).write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match="is damaged") as caught:
        read_prior(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_prior_that_lacks_an_array_is_damaged(tmp_path: Path) -> None:
    np.savez(tmp_path / PRIOR_NAME, saturation_rps=np.zeros(2))
    with pytest.raises(InputError, match="holds no fits"):
        read_prior(tmp_path)
