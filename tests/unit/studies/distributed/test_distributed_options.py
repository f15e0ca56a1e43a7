import argparse

import pytest

from falcon_ray.errors import InputError
from falcon_ray.studies.distributed.options import add_arguments, read_options


def test_faults_are_made_three_times_or_as_often_as_is_said() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    assert read_options(parser.parse_args([])).repeat == 3
    assert read_options(parser.parse_args(["--repeat", "7"])).repeat == 7
    with pytest.raises(InputError, match="--repeat must be 1 or more, got 0"):
        read_options(parser.parse_args(["--repeat", "0"]))
