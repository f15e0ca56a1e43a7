import math
import pickle
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from falcon_ray.errors import InputError
from falcon_ray.knowledge.device import DeviceKind
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.knowledge.profile.schemas import OPERATORS
from falcon_ray.knowledge.profile.tables import content_hash, device_of_row, device_row
from tests.unit.knowledge.profile_rows import (
    DEVICE,
    OPERATOR,
    SOURCES,
    operators,
    rows,
)


def profile(*changes: dict[str, object]) -> Profile:
    return Profile.of_tables(operators(*changes), SOURCES)


def only_row(table: pa.Table) -> dict[str, object]:
    (row,) = table.to_pylist()
    return row


def test_an_empty_profile_has_every_table_and_no_row() -> None:
    empty = Profile.empty()
    assert empty.is_empty
    assert empty.operators.num_rows == empty.models.num_rows == 0
    assert empty.devices() == empty.constants() == ()
    assert empty.device("T4") is None


def test_two_measurements_of_one_key_merge_by_inverse_variance_of_log_latency() -> None:
    merged = profile({"latency_us": 100.0, "relative_sd": 0.02, "n": 10}).merged(
        profile({"latency_us": 101.0, "relative_sd": 0.01, "n": 5})
    )
    row = only_row(merged.operators)
    # weights 1/0.02^2 = 2500 and 1/0.01^2 = 10000, that is 1/5 and 4/5
    assert row["latency_us"] == pytest.approx(100.0**0.2 * 101.0**0.8)
    # they agree (chi-square 0.2 on one degree of freedom): 1/sqrt(12500)
    assert row["relative_sd"] == pytest.approx(1 / math.sqrt(12500))
    assert row["n"] == 15


def test_measurements_that_disagree_widen_the_error_of_their_mean() -> None:
    merged = profile({"latency_us": 100.0}).merged(profile({"latency_us": 110.0}))
    row = only_row(merged.operators)
    assert row["latency_us"] == pytest.approx(math.sqrt(100.0 * 110.0))
    # chi-square = 2 (ln(1.1)/2 / 0.02)^2 on one degree of freedom; 0.02/sqrt(2) times its root
    expected = 0.02 / math.sqrt(2) * math.sqrt(2) * (math.log(1.1) / 2) / 0.02
    assert row["relative_sd"] == pytest.approx(expected)


@pytest.mark.parametrize(
    "key",
    [
        {"op": "matmul"},
        {"family": "bmm"},
        {"dims": [8, 16, 33]},
        {"dtype": "bfloat16"},
        {"device": "L4"},
        {"threads": 1},
        {"share": 0.5},
        {"mode": "graph"},
        {"environment": "there"},
        {"source": "other"},
    ],
    ids=lambda key: next(iter(key)),
)
def test_measurements_that_differ_in_any_key_stay_apart(key: dict[str, object]) -> None:
    merged = profile({}).merged(profile(key), profile({"latency_us": 50.0}))
    assert merged.operators.num_rows == 2


def test_dimensions_are_compared_one_by_one() -> None:
    # As text without a separator [1, 23] and [12, 3] would be the same.
    assert profile({"dims": [1, 23]}).merged(profile({"dims": [12, 3]})).operators.num_rows == 2


@pytest.mark.parametrize(
    ("relative_sd", "n", "expected"),
    [
        (0.05, 1, 0.05),
        (math.nan, 9, 0.01),  # 3 % of one repeat, over sqrt(9)
        (0.0, 9, 0.01),  # a clock too coarse to tell
        (1e-9, 9, 0.001),  # no clock is that good
    ],
)
def test_an_error_is_never_zero_or_unknown(relative_sd: float, n: int, expected: float) -> None:
    row = only_row(profile({"relative_sd": relative_sd, "n": n}).operators)
    assert row["relative_sd"] == pytest.approx(expected)
    assert row["latency_us"] == 100.0


def test_what_several_hold_counts_once() -> None:
    a, b = profile({"n": 10}), profile({"n": 7, "latency_us": 99.0})
    assert only_row(a.merged(a).operators)["n"] == 10
    assert only_row(a.merged(b).merged(b, a).operators)["n"] == 17


def test_the_order_of_merging_changes_nothing() -> None:
    rng = np.random.default_rng(5)
    several = [
        profile(
            *({"latency_us": float(x), "dims": [int(d)]} for x, d in zip(xs, range(3), strict=True))
        )
        for xs in rng.lognormal(size=(4, 3))
    ]
    a, b, c, d = several
    forward, backward = a.merged(b, c, d), d.merged(c).merged(b.merged(a))
    assert forward.operators.equals(backward.operators)
    assert forward.version == backward.version != a.version


def test_a_consolidated_profile_knows_the_same_and_what_it_was_made_of() -> None:
    a, b = profile({"n": 10}), profile({"n": 7, "latency_us": 99.0})
    whole = a.merged(b).consolidated()
    assert len(whole.parts) == 1
    assert whole.version == a.merged(b).version
    assert whole.operators.equals(a.merged(b).operators)
    assert only_row(whole.merged(b).operators)["n"] == 17


def test_memory_that_was_measured_once_is_not_lost_in_a_merge() -> None:
    def models(change: dict[str, object]) -> Profile:
        return Profile.of_tables(rows("models", change), SOURCES)

    merged = models({"peak_memory_bytes": None}).merged(
        models({"peak_memory_bytes": 5e6, "n": 1}), models({"batch_size": 8})
    )
    by_batch = {row["batch_size"]: row for row in merged.models.to_pylist()}
    assert by_batch[4]["peak_memory_bytes"] == 5e6
    assert by_batch[8]["peak_memory_bytes"] is None


def test_of_two_fits_of_one_key_the_later_source_counts_whatever_the_order() -> None:
    old = Profile.of_tables(rows("constants", {"values": [1e-5, 1.5]}), SOURCES)
    later = {"new": replace(SOURCES["lab"], date="2026-02-01")}
    new = Profile.of_tables(
        rows("constants", {"values": [2e-5, 1.2], "source": "new", "n": 1}), later
    )
    for merged in (old.merged(new), new.merged(old)):
        (fitted,) = merged.constants("roofline")
        assert fitted.value("flops") == 1.2
        assert fitted.covariance.shape == (2, 2)
    assert old.constants("another") == ()


def test_facts_of_a_device_survive_their_row() -> None:
    held = Profile.of_tables(rows("devices", {}))
    (device,) = held.devices()
    assert held.device("cpu-model") == device
    assert device.kind is DeviceKind.CPU
    assert device.peak("bfloat16") == 2e11
    assert device_of_row(device_row(device)) == device


def test_a_profile_survives_being_sent_to_another_process() -> None:
    held = profile({}).consolidated()
    assert held.operators.num_rows == 1
    again = pickle.loads(pickle.dumps(held))  # noqa: S301
    assert again.operators.equals(held.operators)
    assert again.version == held.version


def test_a_content_is_known_again_whatever_its_chunks_and_offsets() -> None:
    table = operators({"dims": [1]}, {"dims": [2, 3], "op": "addmm"}, {"dims": [4]})["operators"]
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    padded = pa.concat_tables([table.slice(2), table]).combine_chunks().slice(1)
    assert content_hash("operators", chunked) == content_hash("operators", table)
    assert content_hash("operators", padded) == content_hash("operators", table)


def test_contents_that_differ_in_one_value_have_other_hashes() -> None:
    changes: list[dict[str, object]] = [
        {},
        {"n": 11},
        {"dims": [8, 16, 33]},
        {"dims": [8, 16]},
        {"op": "linea", "family": "rlinear"},
        {"latency_us": math.nextafter(100.0, 101.0)},
    ]
    hashes = {content_hash("operators", operators(each)["operators"]) for each in changes}
    assert len(hashes) == len(changes)
    models = rows("models", {"peak_memory_bytes": None}, {"peak_memory_bytes": 0.0})["models"]
    assert content_hash("models", models[:1]) != content_hash("models", models[1:])


def test_unknown_columns_are_left_out_and_missing_nullable_ones_filled() -> None:
    table = rows("models", {})["models"].drop_columns("peak_memory_bytes")
    table = table.append_column("colour", pa.array(["blue"]))
    row = only_row(Profile.of_tables({"models": table}).models)
    assert row["peak_memory_bytes"] is None
    assert "colour" not in row


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency_us": 0.0}, "latency_us must be positive and finite"),
        ({"latency_us": math.nan}, "latency_us must be positive and finite"),
        ({"share": 1.5}, r"share must be within \(0, 1\]"),
        ({"relative_sd": -0.1}, "relative_sd must not be negative"),
        ({"n": 0}, "n must be at least 1"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        profile({}, change)


def test_a_table_that_does_not_fit_its_schema_is_refused() -> None:
    table = operators({})["operators"]
    with pytest.raises(InputError, match="operators lacks the column mode"):
        Profile.of_tables({"operators": table.drop_columns("mode")})
    with pytest.raises(InputError, match="no table 'prices'"):
        Profile.of_tables({"prices": table})
    text = pa.Table.from_pylist([{**OPERATOR, "n": "many"}])
    with pytest.raises(InputError, match="a column n that is no int64"):
        Profile.of_tables({"operators": text})
    nulls = pa.Table.from_pylist([{**OPERATOR, "device": None}])
    with pytest.raises(InputError, match="rows without device"):
        Profile.of_tables({"operators": nulls})
    lopsided = {**DEVICE, "peak_flops_per_s": [1e11]}
    with pytest.raises(InputError, match="one rate per dtype"):
        Profile.of_tables(rows("devices", lopsided))
    with pytest.raises(InputError, match="2 terms"):
        Profile.of_tables(rows("constants", {"covariance": [1.0]}))


def test_the_tables_have_exactly_their_schema() -> None:
    assert profile({}).merged(profile({"n": 3})).operators.schema == OPERATORS
