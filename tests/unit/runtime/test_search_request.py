import json
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from falcon_ray.errors import InputError
from falcon_ray.runtime.search_request import (
    SearchRequest,
    read_request_file,
    request_of,
    resumed_request,
)
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.workload import LoadPath, Scenario, Workload


def complaint(**values: object) -> str:
    """The one line that the user reads."""
    with pytest.raises(InputError) as caught:
        request_of({"model": "resnet50", **values})
    message = str(caught.value)
    assert "\n" not in message
    return message


def stored(**values: object) -> dict[str, Any]:
    """What the journal of an earlier search gives back."""
    return json.loads(json.dumps(request_of({"model": "resnet50", **values}).to_json()))


def test_everything_but_the_target_has_a_default() -> None:
    assert all(each.default is not MISSING for each in fields(SearchRequest))
    request = request_of({"model": "resnet50"})
    assert request.max_trials == 6
    assert request.slo is None


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("max_trails", "max_trials"),
        ("latency-budget-ms", "latency_budget_ms"),
        ("latency_budget", "latency_budget_ms"),
        ("baselines", "baseline"),
        ("offered-rps", "offered_rps"),
        ("load", "load_path"),
        ("confirm_round", "confirm_rounds"),
    ],
)
def test_an_unknown_key_says_the_nearest_and_lists_the_known(key: str, near: str) -> None:
    message = complaint(**{key: 1})
    assert message.startswith(f"unknown key {key!r}; did you mean {near!r}? known are model, app, ")


def test_an_unknown_key_that_is_near_none_gets_no_hint() -> None:
    assert complaint(zzz=1).startswith("unknown key 'zzz'; known are ")


def test_a_key_that_is_no_text_is_unknown() -> None:
    with pytest.raises(InputError, match="unknown key 5; known are"):
        request_of({5: 1})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("values", [{}, {"model": "resnet50", "app": "shop:build"}])
def test_exactly_one_target_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"a model .* or --app, one of the two"):
        request_of(values)


def test_either_target_will_do() -> None:
    assert request_of({"model": "resnet50"}).app is None
    assert request_of({"app": "shop:build"}).model is None


@pytest.mark.parametrize(
    "name",
    [
        "time_budget_s",
        "latency_budget_ms",
        "offered_rps",
        "usd_per_hour",
        "max_output_error",
        "warm_up_s",
        "measure_s",
        "deploy_timeout_s",
    ],
)
@pytest.mark.parametrize("value", [0, -1.5, float("nan"), float("inf"), "5", True])
def test_prices_budgets_and_times_are_positive_numbers(name: str, value: object) -> None:
    assert complaint(**{name: value}) == f"{name} must be a positive number, got {value!r}"


@pytest.mark.parametrize("value", [0, -3])
def test_at_least_one_trial_is_run(value: int) -> None:
    assert complaint(max_trials=value) == f"max_trials must be at least 1, got {value}"


@pytest.mark.parametrize("name", ["max_trials", "seed", "confirm_rounds"])
@pytest.mark.parametrize("value", [1.5, "3", True])
def test_counts_are_whole_numbers(name: str, value: object) -> None:
    assert complaint(**{name: value}) == f"{name} must be a whole number, got {value!r}"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"seed": -1}, "seed must not be negative, got -1"),
        ({"measure_s": 0.5}, "measure_s must be at least 1, got 0.5"),
        (
            {"confirm_rounds": 0},
            (
                "confirm_rounds must be at least 1, got 0; to measure nothing again, give confirm: "
                "false (--no-confirm)"
            ),
        ),
        (
            {"scenario": "sever"},
            (
                "there is no scenario 'sever'; did you mean 'server'? known are offline, server, "
                "single_stream"
            ),
        ),
        (
            {"scenario": "SingleStream"},
            (
                "there is no scenario 'SingleStream'; did you mean 'single_stream'? known are "
                "offline, server, single_stream"
            ),
        ),
        ({"scenario": 5}, "there is no scenario 5; known are offline, server, single_stream"),
        (
            {"load_path": "https"},
            "there is no load_path 'https'; did you mean 'http'? known are handle, http, replica",
        ),
        ({"load_path": ["http"]}, "load_path must be a text, got ['http']"),
        (
            {"scenario": "server"},
            "the server scenario needs a latency limit; give latency_budget_ms, or ask for offline",
        ),
        (
            {"scenario": "offline", "latency_budget_ms": 50},
            (
                "latency_budget_ms limits nothing in the offline scenario; leave it out, or ask "
                "for server or single_stream"
            ),
        ),
        (
            {"offered_rps": 40},
            (
                "a rate is offered in the server scenario only, not in offline; leave out "
                "offered_rps, or give a latency budget"
            ),
        ),
        (
            {"offered_rps": 4e7, "latency_budget_ms": 50},
            "offered_rps of 4e+07 is more than 1e+06 requests per second; give requests per second",
        ),
        ({"arrival_trace": 5}, "arrival_trace must be a path, got 5"),
        (
            {"arrival_trace": "a.txt"},
            (
                "arrival_trace says when a server's requests arrive, and offline has no arrivals; "
                "give latency_budget_ms, or leave the trace out"
            ),
        ),
        (
            {"arrival_trace": "a.txt", "scenario": "single_stream", "latency_budget_ms": 50},
            (
                "arrival_trace says when a server's requests arrive, and single_stream has no "
                "arrivals; give latency_budget_ms, or leave the trace out"
            ),
        ),
        (
            {"latency_percentile": 95},
            "latency_percentile needs a limit; give latency_budget_ms as well",
        ),
        (
            {"latency_budget_ms": 5, "latency_percentile": 100},
            "latency_percentile must lie between 0 and 100 (exclusive), got 100",
        ),
        ({"model": 5}, "model must be a text, got 5"),
        ({"optimizer": ["random"]}, "optimizer must be a text, got ['random']"),
        ({"output_dir": 5}, "output_dir must be a path, got 5"),
        ({"confirm": "no"}, "confirm must be true or false, got 'no'"),
        ({"input_shape": 3}, "input_shape must be a list of values, got 3"),
        ({"input_shape": "3,4"}, "input_shape must be a list of values, got '3,4'"),
        ({"input_shape": [3, -1]}, "input_shape must hold positive whole numbers, got -1"),
        ({"search_space": [1]}, "search_space must hold values by dimension name, got [1]"),
        (
            {"search_space": {"batch_size": 8}},
            "search_space: batch_size must be a list of values, got 8",
        ),
        (
            {"search_space": {"dtype": "float32"}},
            "search_space: dtype must be a list of values, got 'float32'",
        ),
        (
            {"search_space": {"batch_size": None}},
            "search_space: batch_size must be a list of values, got None",
        ),
        (
            {"search_space": {"batch_size": [[8]]}},
            "search_space: batch_size: a value must be a number or a text, got [8]",
        ),
        (
            {"search_space": {8: [1]}},
            "search_space: a dimension's name must be a text, got 8",
        ),
        ({"baseline": "none"}, "baseline must hold values by dimension name, got 'none'"),
        (
            {"baseline": {"batch_size": [8]}},
            "baseline: batch_size: a value must be a number or a text, got [8]",
        ),
        (
            {"space_constraints": "batch_size > 1"},
            "space_constraints must be a list of values, got 'batch_size > 1'",
        ),
        ({"space_constraints": [5]}, "space_constraints must hold expressions, got 5"),
        (
            {"resume": "runs/a", "output_dir": "runs/b"},
            "--resume goes on in its own directory; leave out --output-dir",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line(values: dict[str, Any], expected: str) -> None:
    assert complaint(**values) == expected


def test_a_key_without_a_value_takes_its_default() -> None:
    request = request_of({"model": "resnet50", "measure_s": None, "space_constraints": None})
    assert request == request_of({"model": "resnet50"})


def test_a_latency_limit_is_an_slo() -> None:
    request = request_of({"model": "m", "latency_budget_ms": 50, "latency_percentile": 95})
    assert request.slo == Slo(latency_budget_ms=50, latency_percentile=95)


@pytest.mark.parametrize(
    ("values", "scenario"),
    [
        ({}, Scenario.OFFLINE),
        ({"latency_budget_ms": 50}, Scenario.SERVER),
        ({"scenario": "single_stream"}, Scenario.SINGLE_STREAM),
        ({"scenario": "single_stream", "latency_budget_ms": 50}, Scenario.SINGLE_STREAM),
    ],
)
def test_a_latency_limit_decides_the_scenario_that_nobody_named(
    values: dict[str, Any], scenario: Scenario
) -> None:
    request = request_of({"model": "m", **values})
    assert request.objective.scenario is request.workload.scenario is scenario
    assert stored(**values)["scenario"] == scenario.value


def test_a_workload_says_path_and_rate() -> None:
    values = {"latency_budget_ms": 50, "load_path": "http", "offered_rps": 40}
    request = request_of({"model": "m", **values})
    assert request.workload == Workload(
        scenario=Scenario.SERVER, path=LoadPath.HTTP, offered_rps=40
    )
    assert request.objective == Objective(Slo(latency_budget_ms=50), offered_rps=40)


def test_a_trace_is_kept_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    asked = {"arrival_trace": "arrivals.txt", "latency_budget_ms": 50}
    before = stored(**asked)
    assert before["arrival_trace"] == str(tmp_path / "arrivals.txt")
    # The same file by the same name is the same search, one of that name elsewhere is not.
    again = {"resume": "r", "arrival_trace": Path("arrivals.txt")}
    assert resumed_request(before, again).arrival_trace == str(tmp_path / "arrivals.txt")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert resumed_request(before, {"resume": "r"}).to_json() == before
    with pytest.raises(InputError, match="keeps its arrival_trace"):
        resumed_request(before, again)


def test_the_stored_request_says_nothing_of_where_it_ran() -> None:
    names = {each.name for each in fields(SearchRequest)}
    assert stored(output_dir="runs/a", address="auto").keys() == names - {
        "output_dir",
        "resume",
        "address",
    }


def test_a_resumed_search_keeps_what_it_was_asked() -> None:
    before = stored(
        seed=3, search_space={"batch_size": (1, 2)}, baseline={"batch_size": 1}, input_shape=(3, 4)
    )
    request = resumed_request(before, {"resume": "runs/a"})
    assert request.to_json() == before
    assert request.resume == "runs/a"


def test_a_search_from_before_there_were_workloads_can_be_resumed() -> None:
    new = {"scenario", "load_path", "offered_rps", "arrival_trace", "confirm_rounds"}
    now = stored(latency_budget_ms=50)
    before = {name: value for name, value in now.items() if name not in new}
    assert resumed_request(before, {"resume": "r"}).to_json() == now
    assert resumed_request(before, {"resume": "r", "scenario": "server"}).to_json() == now
    with pytest.raises(InputError, match=r"keeps its scenario \('server'\); leave it out, or"):
        resumed_request(before, {"resume": "r", "scenario": "single_stream"})


def test_a_resumed_search_may_take_longer() -> None:
    given = {"resume": "r", "max_trials": 9, "time_budget_s": 60.0, "confirm": False}
    request = resumed_request(stored(max_trials=3), given | {"confirm_rounds": 3})
    assert (request.max_trials, request.time_budget_s, request.confirm) == (9, 60.0, False)
    assert request.confirm_rounds == 3


def test_a_resumed_search_may_be_asked_the_same_again() -> None:
    asked = {
        "seed": 3,
        "search_space": {"batch_size": (1, 2)},  # in JSON a tuple becomes a list
        "space_constraints": ("batch_size > 1",),
        "input_shape": (3, 4),
    }
    request = resumed_request(stored(**asked), {"model": "resnet50", "resume": "r", **asked})
    assert request.seed == 3


@pytest.mark.parametrize(
    ("name", "value", "kept"),
    [
        ("model", "bert_base", "'resnet50'"),
        ("seed", 4, "3"),
        ("latency_budget_ms", 9.0, "None"),
        ("load_path", "http", "'handle'"),
        ("offered_rps", 40.0, "None"),
        ("search_space", {"batch_size": [1, 4]}, r"\{'batch_size': \[1, 2\]\}"),
    ],
)
def test_a_resumed_search_does_not_become_another_one(name: str, value: object, kept: str) -> None:
    before = stored(seed=3, search_space={"batch_size": [1, 2]})
    with pytest.raises(InputError, match=rf"keeps its {name} \({kept}\); leave it out, or start"):
        resumed_request(before, {"resume": "r", name: value})


def test_an_unknown_key_of_a_resumed_search_says_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown key 'max_trails'; did you mean 'max_trials'"):
        resumed_request(stored(), {"resume": "r", "max_trails": 9})


def test_a_resumed_search_goes_on_in_its_own_directory() -> None:
    with pytest.raises(InputError, match="leave out --output-dir"):
        resumed_request(stored(), {"resume": "runs/a", "output_dir": "runs/b"})


def test_a_file_holds_values_by_name(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("model: resnet50\nsearch_space:\n  batch_size: [1, 2]\n", encoding="utf-8")
    expected = {"model": "resnet50", "search_space": {"batch_size": [1, 2]}}
    assert read_request_file(path) == expected


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    path.write_text("# nothing yet\n", encoding="utf-8")
    assert read_request_file(path) == {}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"- 1\n- 2\n", "must hold keys and values, such as 'max_trials: 6'"),
        (b"max_trials\n", "must hold keys and values, such as 'max_trials: 6'"),
        (b"a: [1\nb: }\n", "is no YAML: while parsing a flow sequence"),
        (b"a: !!python/object:os.system {}\n", "is no YAML: could not determine a constructor"),
        (b"\xff\xfe\xfa", "is no YAML: 'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_is_no_request_is_one_line(
    content: bytes, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "search.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_request_file(path)
    assert str(caught.value).startswith(f"{path} {expected}")
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    path = tmp_path / "search.yaml"
    with pytest.raises(InputError) as caught:
        read_request_file(path)
    assert str(caught.value) == f"{path} cannot be read: No such file or directory"


def test_an_emulated_search_loads_its_replicas_from_inside_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    table = tmp_path / "times.csv"
    emulated = request_of({"model": "m.py:f", "emulate": ["T4"], "emulate_table": str(table)})
    assert (emulated.load_path, emulated.emulate_table) == ("replica", str(table))
    told = request_of({"model": "m.py:f", "emulate": ["T4"], "load_path": "handle"})
    assert told.load_path == "handle"
    assert request_of({"model": "m.py:f"}).load_path == "handle"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"emulate": []}, "emulate must hold names of GPU types"),
        ({"emulate": "T4"}, "emulate must be a list of values"),
        ({"emulate_table": "times.csv"}, "give emulate as well"),
        ({"parallel": 0}, "parallel must be a whole number of at least 1"),
        ({"max_cost_usd": -1}, "max_cost_usd must be a positive number"),
        ({"provision_timeout_s": 0}, "provision_timeout_s must be a positive number"),
    ],
)
def test_what_cannot_be_said_of_parallel_trials_is_refused(
    values: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        request_of({"model": "m.py:f", **values})
