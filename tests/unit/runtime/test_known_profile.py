from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.runtime.known_profile import known_profile


def test_a_store_that_is_new_holds_nothing_where_that_is_allowed(tmp_path: Path) -> None:
    store, packaged = str(tmp_path / "new"), Profile.empty()
    assert known_profile(store, packaged, missing_ok=True).version == packaged.version
    with pytest.raises(InputError, match="there is no profile at"):
        known_profile(store, packaged)
