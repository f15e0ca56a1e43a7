import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from falcon_ray.errors import ClusterError, EmptySpaceError, InputError
from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.ray_session import Cluster
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.search_nodes import check_same_nodes, node_prices
from falcon_ray.runtime.search_request import SearchRequest, request_of
from falcon_ray.runtime.search_setup import (
    CheckedTarget,
    check_latency_budget,
    check_same_trace,
    check_target,
    measurement_plan,
    search_header,
    search_space,
)
from falcon_ray.runtime.target import ModelTarget
from falcon_ray.runtime.torch_model import ExampleInputs
from falcon_ray.space.catalogue import Catalogue
from falcon_ray.space.configuration import Configuration, ConfigurationSpace
from falcon_ray.space.defaults import NodeShape, default_space
from falcon_ray.space.objective import Objective, Slo
from falcon_ray.space.workload import LoadPath, Scenario
from falcon_ray.trial.arrivals import ArrivalTrace, Poisson
from falcon_ray.trial.load_points import CERTIFIED_STEP

TWO_CORES = NodeShape(cpus=2, ram_gib=7.6, gpu_type=None, n_gpus=0)
WITH_T4 = NodeShape(cpus=4, ram_gib=16.0, gpu_type="T4", n_gpus=1)

SMALL = ConfigurationSpace.of(
    {"cpu_cores": [1, 2], "batch_size": [1, 8], "replicas": [1, 2]}, ["cpu_cores * replicas <= 2"]
)

TINY = """
from torch import nn
import torch
def make(): return nn.Linear(3, 2)
def make_inputs(n): return torch.ones(n, 3)
def misfit(): return nn.Linear(4, 2)
misfit_inputs = make_inputs
"""

SHOP = """
def shop(configuration):
    from ray import serve
    @serve.deployment
    class Shop:
        def __call__(self, request): return request
        def sell(self, request): return request
    return Shop.bind()
def shop_space(): return {"batch_size": [1]}
def shop_request(): return {"item": 1}
stall, stall_space, stall_request, stall_method = shop, shop_space, shop_request, "sell"
kiosk, kiosk_space = shop, shop_space
def kiosk_request(): return {"item": {1, 2}}
"""


def asked(**values: object) -> SearchRequest:
    return request_of({"model": "tiny.py:make", **values})


def checked(space: ConfigurationSpace | None = SMALL) -> CheckedTarget:
    target = ModelTarget(ModelReference(Reference("/home/me/tiny.py:make_tiny", "/home/me")))
    return CheckedTarget(target, request=None, space=space)


def header(space: ConfigurationSpace | None = SMALL, /, **values: object) -> SearchHeader:
    directory = Path("/home/me")
    return search_header(asked(**values), checked(space), [TWO_CORES], directory=directory)


def complaint(space: ConfigurationSpace | None = SMALL, /, **values: object) -> str:
    """The one line that the user reads."""
    with pytest.raises(InputError) as caught:
        header(space, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def values_of(space: ConfigurationSpace, name: str) -> tuple[object, ...]:
    return next(each.values for each in space.dimensions if each.name == name)


def test_nothing_asked_leaves_the_default_space() -> None:
    assert search_space(SMALL, values={}, constraints=[]) == SMALL


def test_given_values_replace_those_of_the_default_and_keep_its_place() -> None:
    space = search_space(SMALL, values={"batch_size": [4, 2]}, constraints=[])
    assert [each.name for each in space.dimensions] == ["cpu_cores", "batch_size", "replicas"]
    assert values_of(space, "batch_size") == (2, 4)
    assert values_of(space, "cpu_cores") == (1, 2)


def test_an_unknown_dimension_is_added_behind_the_others() -> None:
    space = search_space(SMALL, values={"beams": [1, 4]}, constraints=[])
    assert [each.name for each in space.dimensions][-1] == "beams"
    assert len(space) == 2 * len(SMALL)


def test_given_constraints_come_on_top_of_the_default_ones() -> None:
    space = search_space(SMALL, values={}, constraints=["batch_size > 1 or replicas == 1"])
    assert [each.expression for each in space.constraints] == [
        "cpu_cores * replicas <= 2",
        "batch_size > 1 or replicas == 1",
    ]
    assert Configuration({"cpu_cores": 1, "batch_size": 1, "replicas": 2}) not in space


def test_the_constraint_that_empties_the_space_is_named() -> None:
    with pytest.raises(EmptySpaceError) as caught:
        search_space(SMALL, values={}, constraints=["batch_size > 0", "batch_size > 8"])
    # 2 * 2 * 2 = 8; two cores allow 3 of 4 pairs of cores and replicas, times 2 batch sizes.
    assert str(caught.value) == (
        "no configuration is left: 8 combinations, 6 after 'cpu_cores * replicas <= 2', "
        "6 after 'batch_size > 0', 0 after 'batch_size > 8'; relax that constraint or widen the "
        "values of batch_size"
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"search_space": {"batch_size": []}}, "batch_size: give at least one value"),
        ({"search_space": {"batch_size": [0]}}, "batch_size: must be at least 1, got 0"),
        ({"search_space": {"cpu_cores": [1.5]}}, "cpu_cores: must be a whole number, got 1.5"),
        ({"search_space": {"a b": [1]}}, "a dimension's name must be an identifier"),
        ({"space_constraints": ["batch_size >"]}, "constraint 'batch_size >' is no expression"),
        ({"space_constraints": ["batch > 1"]}, "names 'batch', which is no dimension"),
        ({"space_constraints": ["exit(batch_size)"]}, "names 'exit', which is no dimension"),
        ({"space_constraints": ["batch_size < 'a'"]}, "cannot be evaluated"),
    ],
)
def test_a_space_that_makes_no_sense_is_one_line(values: dict[str, Any], expected: str) -> None:
    assert expected in complaint(**values)


def test_a_dtype_that_no_model_can_be_served_in_is_refused() -> None:
    model = replace(
        checked(ConfigurationSpace.of({"dtype": ["float32"]})), inputs=ExampleInputs(())
    )
    request = asked(search_space={"dtype": ["float32", "int8"]})
    with pytest.raises(InputError, match="dtype 'int8' is none that a model can be served in: "):
        search_header(request, model, [TWO_CORES], directory=Path("/home/me"))


def test_an_app_may_name_dtypes_of_its_own() -> None:
    space = ConfigurationSpace.of({"dtype": ["int8"]})
    assert header(space).space == space


def test_without_a_declared_space_the_cluster_suggests_one() -> None:
    assert header(None).space == default_space([TWO_CORES])


def test_the_default_baseline_is_one_untuned_replica() -> None:
    assert header().baseline == Configuration({"cpu_cores": 1, "batch_size": 1, "replicas": 1})


def test_a_partial_baseline_is_completed_by_the_default_one() -> None:
    baseline = header(baseline={"batch_size": 8}).baseline
    assert baseline == Configuration({"cpu_cores": 1, "batch_size": 8, "replicas": 1})


def test_a_baseline_may_lie_outside_the_space() -> None:
    baseline = header(baseline={"batch_size": 64}).baseline
    assert baseline is not None
    assert baseline["batch_size"] == 64


def test_a_baseline_of_an_unknown_dimension_lists_the_known() -> None:
    assert complaint(baseline={"batch": 8}) == (
        "baseline: 'batch' is no dimension of this space: cpu_cores, batch_size, replicas"
    )


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ({"batch_size": 0}, "batch_size: must be at least 1, got 0"),
        ({"batch_size": "large"}, "batch_size: values must be finite numbers, got 'large'"),
        (
            {"cpu_cores": 8},
            "baseline: no node can hold a replica with 8 CPU cores; they have",
        ),
    ],
)
def test_a_baseline_that_cannot_be_served_is_one_line(
    baseline: dict[str, Any], expected: str
) -> None:
    assert complaint(baseline=baseline).startswith(expected)


def test_a_cpu_node_costs_its_vcpus_part_of_the_reference_instance() -> None:
    (node,) = node_prices([TWO_CORES], usd_per_hour=None)
    reference = Catalogue.packaged().instance("m6i.xlarge")
    assert node.usd_per_hour == pytest.approx(reference.usd_per_hour / reference.vcpus * 2)
    assert (node.vcpus, node.ram_gib) == (2, 8)


def test_a_given_price_is_that_of_the_whole_node() -> None:
    (node,) = node_prices([TWO_CORES], usd_per_hour=0.5)
    assert (node.usd_per_hour, node.price_source) == (0.5, "given")


def test_equal_nodes_are_one_price_and_nodes_without_work_none() -> None:
    idle = NodeShape(cpus=0, ram_gib=4.0, gpu_type=None, n_gpus=0)
    assert len(node_prices([TWO_CORES, TWO_CORES, idle], usd_per_hour=None)) == 1


def test_a_gpu_node_costs_what_the_catalogues_instances_with_its_gpu_do() -> None:
    instances = node_prices([WITH_T4], usd_per_hour=None)
    assert instances == Catalogue.packaged().instances_with("T4")
    assert "g4dn.xlarge" in [each.instance_type for each in instances]


def test_one_price_is_not_given_for_gpus() -> None:
    with pytest.raises(InputError, match="usd_per_hour prices nodes without GPUs"):
        node_prices([TWO_CORES, WITH_T4], usd_per_hour=0.5)


def test_a_gpu_without_any_priced_instance_says_what_to_add() -> None:
    priced = {each.gpu_type for each in Catalogue.packaged().instances}
    unpriced = next(gpu for gpu in Catalogue.packaged().gpus if gpu.gpu_type not in priced)
    node = NodeShape(cpus=8, ram_gib=32.0, gpu_type=unpriced.gpu_type, n_gpus=1)
    with pytest.raises(InputError, match=f"no instance with a {unpriced.gpu_type} has a price"):
        node_prices([node], usd_per_hour=None)


def test_a_price_for_every_candidate_follows_from_the_given_one() -> None:
    priced = header(usd_per_hour=0.5)
    prices = priced.pricing.usd_per_hour(priced.space.candidates)
    # Two cores: a replica of one core costs half of the node, one of two cores the whole.
    cores = np.array([each.count("cpu_cores", 1) for each in priced.space.candidates])
    replicas = np.array([each.count("replicas", 1) for each in priced.space.candidates])
    assert prices == pytest.approx(0.25 * cores * replicas)


def test_a_candidate_that_no_instance_holds_is_refused_before_anything_is_deployed() -> None:
    message = complaint(ConfigurationSpace.of({"cpu_cores": [1, 8]}))
    assert message.startswith(
        "no priced instance holds one replica of cpu_cores=8 "
        "(cpu-node-2-8gib has too little: CPU cores)"
    )


def test_the_header_says_what_serve_run_needs() -> None:
    said = header(seed=7)
    assert said.target == "tiny.py:make"
    assert said.seed == 7
    assert said.settings["directory"] == "/home/me"
    assert said.settings["serve"] == {
        "name": "make-tiny",
        "import_path": "falcon_ray.runtime.torch_app:build",
        "arguments": {"model": "/home/me/tiny.py:make_tiny", "seed": 0, "search_path": "/home/me"},
    }
    assert {"python", "falcon-ray", "ray", "torch", "numpy"} == said.versions.keys()


def test_the_header_survives_the_journal() -> None:
    said = header(latency_budget_ms=50.0, baseline={"batch_size": 8})
    again = SearchHeader.from_json(json.loads(json.dumps(said.to_json())))
    assert json.dumps(again.to_json()) == json.dumps(said.to_json())


@pytest.mark.parametrize(("budget_ms", "step"), [(None, None), (50.0, CERTIFIED_STEP)])
def test_how_finely_rates_are_searched_is_told_under_an_slo_only(
    budget_ms: float | None, step: float | None
) -> None:
    assert header(latency_budget_ms=budget_ms).capacity_step == step


def test_a_model_is_checked_and_gives_its_example_request(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    found = check_target(asked(seed=3), directory=tmp_path)
    assert isinstance(found.target, ModelTarget)
    assert found.target.model.seed == 3
    assert [array.tolist() for array in found.request] == [[1.0, 1.0, 1.0]]
    assert found.space is None


def test_a_shape_given_by_the_user_reaches_the_model(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    found = check_target(asked(input_shape=[5, 3], input_dtype="float32"), directory=tmp_path)
    assert [array.shape for array in found.request] == [(5, 3)]
    assert found.target.arguments()["input_shape"] == [5, 3]


def test_the_measurement_takes_no_longer_than_asked() -> None:
    plan = measurement_plan(asked(warm_up_s=1.0, measure_s=2.0, max_output_error=0.1, seed=5))
    assert (plan.warm_up.min_s, plan.warm_up.max_s) == (1.0, 1.0)
    assert (plan.precision.min_s, plan.precision.max_s) == (2.0, 2.0)
    assert (plan.max_output_error, plan.seed, plan.slo) == (0.1, 5, None)
    assert measurement_plan(asked(latency_budget_ms=9.0)).slo == Slo(latency_budget_ms=9.0)


def test_the_measurement_is_under_the_load_that_is_asked_for(tmp_path: Path) -> None:
    trace = tmp_path / "arrivals.txt"
    trace.write_text("0\n0.5\n2\n", encoding="utf-8")
    plain = measurement_plan(asked())
    assert (plain.workload.scenario, plain.arrivals) == (Scenario.OFFLINE, Poisson())
    plan = measurement_plan(
        asked(latency_budget_ms=9.0, load_path="http", offered_rps=5, arrival_trace=trace)
    )
    assert (plan.workload.path, plan.workload.offered_rps) == (LoadPath.HTTP, 5)
    assert plan.arrivals == ArrivalTrace((0.0, 0.5, 2.0))


@pytest.mark.parametrize(
    ("values", "objective", "step"),
    [
        ({"scenario": "single_stream"}, Objective(scenario=Scenario.SINGLE_STREAM), None),
        (
            {"latency_budget_ms": 9.0, "offered_rps": 50},
            Objective(Slo(latency_budget_ms=9.0), offered_rps=50),
            None,  # nothing is searched for
        ),
    ],
)
def test_the_header_holds_the_objective(
    values: dict[str, Any], objective: Objective, step: float | None
) -> None:
    assert header(**values).objective == objective
    assert header(**values).capacity_step == step


@pytest.mark.parametrize(
    ("content", "said"),
    [("0\n2\n1\n", "line 3: 1 s is earlier"), ("0\n-1\n", "line 2: -1 s is negative")],
)
def test_a_trace_that_is_none_is_refused_before_anything_starts(
    content: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    trace = tmp_path / "arrivals.txt"
    trace.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        check_target(asked(arrival_trace=trace, latency_budget_ms=9.0), directory=tmp_path)


def test_an_input_that_the_model_rejects_is_refused_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    with pytest.raises(InputError, match=r"misfit fails on its example input \(float32\[2, 3\]\)"):
        check_target(request_of({"model": "tiny.py:misfit"}), directory=tmp_path)


@pytest.mark.parametrize(
    ("app", "path", "said"),
    [
        (
            "shop.py:shop",
            "replica",
            (
                "load_path replica loads a model inside our own replica, and shop is an "
                "application; give load_path handle or http"
            ),
        ),
        (
            "shop.py:stall",
            "http",
            (
                "load_path http enters stall by its __call__, and stall_method names 'sell'; give "
                "load_path handle"
            ),
        ),
        ("shop.py:kiosk", "http", r"kiosk_request\(\) cannot be sent by HTTP: .* load_path handle"),
    ],
)
def test_a_path_that_an_application_does_not_have_is_refused(
    app: str, path: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        check_target(request_of({"app": app, "load_path": path}), directory=tmp_path)


def test_an_application_is_entered_where_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    for app, path in (("shop", "http"), ("shop", "handle"), ("stall", "handle")):
        request = request_of({"app": f"shop.py:{app}", "load_path": path})
        assert check_target(request, directory=tmp_path).target.name == app


def budget_checked(tmp_path: Path, *, is_local: bool = True, **values: object) -> None:
    """Whether 1 ns is refused as the budget of a model that takes longer than that."""
    (tmp_path / "tiny.py").write_text(TINY, encoding="utf-8")
    request = asked(latency_budget_ms=1e-6, **values)
    target = check_target(request, directory=tmp_path)
    nodes = [TWO_CORES] if "gpu_type" not in str(values) else [WITH_T4]
    said = search_header(request, target, nodes, directory=tmp_path)
    check_latency_budget(said, target, Cluster(tuple(nodes), is_local=is_local))


def test_a_budget_below_the_models_own_latency_is_refused_before_anything_is_deployed(
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=r"one request alone takes the model \S+ ms .* give"):
        budget_checked(tmp_path)


def test_nothing_is_said_of_machines_that_this_one_is_not(tmp_path: Path) -> None:
    budget_checked(tmp_path, is_local=False)
    budget_checked(tmp_path, search_space={"gpu_type": ["T4"], "gpu_share": [1.0]})


def test_a_given_rate_that_cannot_be_certified_is_refused() -> None:
    # (402 + 3 * sqrt(402)) / 120 = 3.85; p90: 31 / 0.8 = 39 requests are soon there.
    assert complaint(latency_budget_ms=50, offered_rps=3) == (
        "offered_rps 3 is too low to certify p99 within 120 s: that takes 402 requests; give at "
        "least 3.85, or a lower latency_percentile"
    )
    header(latency_budget_ms=50, offered_rps=4)
    header(latency_budget_ms=50, offered_rps=3, latency_percentile=90)


def test_a_trace_that_changed_is_no_trace_to_go_on_with(tmp_path: Path) -> None:
    trace = tmp_path / "arrivals.txt"
    trace.write_text("0\n0.5\n2\n", encoding="utf-8")
    values: dict[str, Any] = {"latency_budget_ms": 50, "arrival_trace": trace}
    begun = header(**values)
    check_same_trace(begun, asked(**values))
    trace.write_text("0\n0.5\n3\n", encoding="utf-8")
    with pytest.raises(InputError, match="has changed since the search began; restore the file"):
        check_same_trace(begun, asked(**values))
    trace.unlink()
    with pytest.raises(InputError, match="cannot be read: No such file"):
        check_same_trace(begun, asked(**values))


def test_a_search_from_before_traces_were_compared_goes_on() -> None:
    check_same_trace(replace(header(), settings={}), asked())


def began_on(*nodes: NodeShape) -> SearchHeader:
    return search_header(asked(), checked(), nodes, directory=Path("/home/me"))


def test_a_search_goes_on_where_a_node_was_lost_or_came() -> None:
    check_same_nodes(began_on(TWO_CORES, TWO_CORES), [TWO_CORES])
    check_same_nodes(began_on(TWO_CORES), [TWO_CORES] * 3)
    larger_memory = replace(TWO_CORES, ram_gib=8.1)
    check_same_nodes(began_on(TWO_CORES), [larger_memory])
    check_same_nodes(began_on(TWO_CORES, WITH_T4), [TWO_CORES])


def test_a_search_does_not_go_on_among_other_kinds_of_nodes() -> None:
    four = replace(TWO_CORES, cpus=4)
    for now in ([four], [TWO_CORES, four], [WITH_T4]):
        with pytest.raises(InputError, match="the search began on nodes with 2 x 2 CPUs, this"):
            check_same_nodes(began_on(TWO_CORES, TWO_CORES), now)


def test_a_gpu_that_no_node_has_is_the_clusters_fault() -> None:
    with pytest.raises(ClusterError, match="no node with gpu_type H100: the cluster has no GPU"):
        header(search_space={"gpu_type": ["H100"]})
