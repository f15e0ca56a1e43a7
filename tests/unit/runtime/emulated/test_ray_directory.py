import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from falcon_ray.runtime.emulated.ray_directory import TEMPORARY, ray_directory


@pytest.fixture(autouse=True)
def _nobody_hears_sigterm() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_ray_writes_to_a_directory_that_is_gone_afterwards() -> None:
    before = os.environ.get(TEMPORARY)
    with ray_directory() as directory:
        assert os.environ[TEMPORARY] == directory
        assert Path(directory).is_dir()
    assert os.environ.get(TEMPORARY) == before
    assert not Path(directory).exists()


def test_a_process_that_is_told_to_end_while_ray_starts_or_ends_removes_it() -> None:
    made: list[Path] = []

    def told_to_end() -> None:
        with ray_directory() as directory:
            made.append(Path(directory))
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as ended:
        told_to_end()
    assert ended.value.code == 128 + signal.SIGTERM
    assert [each.exists() for each in made] == [False]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_whoever_hears_of_the_end_already_goes_on_to_do_so() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    with ray_directory():
        signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGTERM]
