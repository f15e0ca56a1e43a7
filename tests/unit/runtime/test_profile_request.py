import pytest

from falcon_ray.errors import InputError
from falcon_ray.runtime.profile_request import ProfileRequest


def test_the_command_asks_for_the_same() -> None:
    request = ProfileRequest(
        models=("resnet50", "my.module:net"),
        dtypes=("float32", "bfloat16"),
        threads=(1, 4),
        location="s3://bucket/my profile",
        time_budget_s=60.0,
    )
    assert request.command == (
        "falcon-ray profile --model resnet50 --model my.module:net --dtype float32 "
        "--dtype bfloat16 --threads 1,4 --store 's3://bucket/my profile' --time-budget-s 60.0"
    )


def test_threads_above_the_cores_are_left_out() -> None:
    assert ProfileRequest(threads=(1, 4, 8)).threads_on(4) == (1, 4)
    assert ProfileRequest(threads=(8,)).threads_on(2) == ()
    assert ProfileRequest().threads_on(2) == (1, 2)
    assert ProfileRequest().threads_on(1) == (1,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"families": ("lineer",)}, "family 'lineer': choose among .*linear"),
        ({"dtypes": ("int8",)}, "dtype 'int8'"),
        ({"dtypes": ()}, "at least one dtype"),
        ({"threads": (0,)}, "1 or more"),
        ({"batch_sizes": (1, -2)}, "1 or more"),
        ({"shares": (1.5,)}, "shares"),
        ({"time_budget_s": 0.0}, "time_budget_s"),
    ],
)
def test_what_cannot_be_asked_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ProfileRequest(**wrong)  # pyright: ignore[reportArgumentType]
