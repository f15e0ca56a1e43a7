import math
from pathlib import Path

import numpy as np
import pytest

from falcon_ray.errors import InputError
from falcon_ray.trial.arrivals import ArrivalTrace, Poisson, read_trace


def test_arrivals_are_ascending_and_within_the_duration() -> None:
    arrivals_s = Poisson().draw(200.0, 5.0, np.random.default_rng(0))
    assert np.all(np.diff(arrivals_s) >= 0)
    assert arrivals_s[0] >= 0
    assert arrivals_s[-1] < 5.0


def test_counts_have_the_mean_and_the_variance_of_a_poisson_process() -> None:
    rng = np.random.default_rng(1)
    counts = [Poisson().draw(50.0, 2.0, rng).size for _ in range(1000)]
    # Mean 50/s * 2 s = 100, known to sqrt(100 / 1000) = 0.32. The variance is 100 as well,
    # known to about 100 * sqrt(2 / 1000) = 4.5. Three standard errors each.
    assert np.mean(counts) == pytest.approx(100.0, abs=1.0)
    assert np.var(counts) == pytest.approx(100.0, abs=13.5)


def test_gaps_are_exponential() -> None:
    gaps_s = np.diff(Poisson().draw(100.0, 100.0, np.random.default_rng(2)))
    # P(gap > 10 ms) = exp(-100/s * 0.01 s) = 0.368, over about 10,000 gaps known to 0.005.
    assert np.mean(gaps_s > 0.01) == pytest.approx(math.exp(-1), abs=0.015)
    assert np.mean(gaps_s > 0.03) == pytest.approx(math.exp(-3), abs=0.0075)


def test_schedule_follows_from_the_seed() -> None:
    one = Poisson().draw(20.0, 3.0, np.random.default_rng(7))
    assert one.tolist() == Poisson().draw(20.0, 3.0, np.random.default_rng(7)).tolist()
    assert one.tolist() != Poisson().draw(20.0, 3.0, np.random.default_rng(8)).tolist()


@pytest.mark.parametrize(
    ("rate_rps", "duration_s", "name"),
    [(0.0, 1.0, "rate_rps"), (math.nan, 1.0, "rate_rps"), (1.0, -1.0, "duration_s")],
)
def test_a_rate_and_a_duration_must_be_positive(
    rate_rps: float, duration_s: float, name: str
) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        Poisson().draw(rate_rps, duration_s, np.random.default_rng(0))


RNG = np.random.default_rng(0)


def test_a_trace_is_scaled_in_time_to_the_rate() -> None:
    trace = ArrivalTrace((10.0, 11.0, 14.0))
    assert trace.rate_rps == 0.5  # 2 gaps in 4 s
    # At 5/s everything goes ten times as fast; a mean gap of 0.2 s comes before the next round.
    assert trace.draw(5.0, 0.6, RNG).tolist() == pytest.approx([0.0, 0.1, 0.4])
    assert trace.draw(5.0, 1.2, RNG).tolist() == pytest.approx([0.0, 0.1, 0.4, 0.6, 0.7, 1.0])


def test_a_trace_that_is_repeated_ends_with_the_duration() -> None:
    trace = ArrivalTrace((10.0, 11.0, 14.0))
    assert trace.draw(5.0, 0.69, RNG).tolist() == pytest.approx([0.0, 0.1, 0.4, 0.6])


def test_of_a_trace_that_is_too_long_the_busiest_stretch_is_used() -> None:
    trace = ArrivalTrace((0.0, 5.0, 10.0, 10.5, 10.9, 16.0))
    # 5 gaps in 16 s. At that rate the busiest second has the arrivals at 10, 10.5 and 10.9 s.
    assert trace.draw(5 / 16, 1.0, RNG).tolist() == pytest.approx([0.0, 0.5, 0.9])


def test_only_random_arrivals_are_alike_at_any_time() -> None:
    assert Poisson().steady
    assert not ArrivalTrace((0.0, 1.0)).steady


@pytest.mark.parametrize("text", ["arrival_s\n0\n0.5\n1e0\n", "0\n\n0.5\n1.0"])
def test_a_trace_is_read_with_or_without_its_header(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    assert read_trace(path).times_s == (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0\n2\n1\n", "line 3: 1 s is earlier than the 2 s before it; sort the times"),
        ("0\n-1\n", "line 2: -1 s is negative; count the seconds from"),
        ("0\nnoon\n", "line 2: 'noon' is not a number; give one time in seconds per line"),
        ("0,1\n", "line 1: '0,1' is not a number; give one time in seconds per line"),
        ("0\nnan\n", "line 2: 'nan' is not finite; leave the line out"),
        ("", "needs at least 2 arrivals, got 0; record for longer"),
        ("arrival_s\n1\n", "needs at least 2 arrivals, got 1; record for longer"),
        ("3\n3\n", "all 2 arrivals of the trace are at 3 s"),
        ("0\n1e-7\n", "1e\\+07 arrivals per second, more than 1e\\+06; give the times in seconds"),
    ],
)
def test_a_bad_trace_says_which_line_and_what_to_do(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_trace(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trace_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(.*No such file"):
        read_trace(tmp_path / "missing.csv")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(binary)


def test_times_that_are_no_trace_are_refused() -> None:
    with pytest.raises(InputError, match="finite and ascending"):
        ArrivalTrace((1.0, 0.0))
