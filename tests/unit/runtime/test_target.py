from pathlib import Path

import pytest

from falcon_ray.errors import InputError
from falcon_ray.runtime.model_reference import ModelReference
from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.search_request import SearchRequest
from falcon_ray.runtime.search_setup import CheckedTarget, check_target
from falcon_ray.runtime.target import AppTarget, ModelTarget
from falcon_ray.space.configuration import Configuration, ConfigurationSpace

APP = """
from ray import serve
@serve.deployment
class Echo:
    def __call__(self, request): return request
def build(configuration): return Echo.bind()
def build_space(): return {"batch_size": [1, 2]}
def build_request(): return {"text": "hello"}
def build_metrics(response): return {"tokens": 1.0}
build_method = "answer"
"""


def app(directory: Path, *changes: tuple[str, str]) -> CheckedTarget:
    text = APP
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (directory / "shop.py").write_text(text, encoding="utf-8")
    return check_target(SearchRequest(app="shop.py:build"), directory=directory)


def test_an_app_is_read_with_what_is_declared_beside_it(tmp_path: Path) -> None:
    found = app(tmp_path)
    assert isinstance(found.target, AppTarget)
    assert found.target.method == "answer"
    assert found.target.response_metrics is not None
    assert found.target.response_metrics.name == "build_metrics"
    assert found.request == {"text": "hello"}
    assert found.space == ConfigurationSpace.of({"batch_size": [1, 2]})
    assert found.inputs is None


def test_an_apps_method_and_metrics_may_be_left_out(tmp_path: Path) -> None:
    found = app(tmp_path, ("def build_metrics", "def other"), ("build_method =", "other_method ="))
    assert found.target.method == "__call__"
    assert found.target.response_metrics is None


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "def build_space",
            "def other",
            "define build_space() beside the builder: the configuration space",
        ),
        (
            "def build_request",
            "def other",
            "define build_request() beside the builder: one example",
        ),
        (
            'return {"batch_size": [1, 2]}',
            "return [1]",
            "build_space() must return a ConfigurationSpace or a dict",
        ),
        ('return {"batch_size": [1, 2]}', "return {}", "needs at least one dimension"),
        (
            'return {"batch_size": [1, 2]}',
            "return {'batch_size': 8}",
            "build_space() must give a list of values for each dimension's name",
        ),
        ("return Echo.bind()", "return Echo", "returned Deployment; return the serve.Application"),
        ("return Echo.bind()", "raise KeyError('x')", "build(batch_size=1) failed: KeyError: 'x'"),
        (
            'return {"text": "hello"}',
            "raise KeyError('x')",
            "build_request() failed: KeyError: 'x'",
        ),
        ("def build(configuration): return Echo.bind()", "build = 5", "build is no function"),
    ],
)
def test_an_app_that_lacks_something_is_one_line(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as caught:
        app(tmp_path, (old, new))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_outputs_of_an_app_are_not_compared_with_float32(tmp_path: Path) -> None:
    request = SearchRequest(app="shop.py:build", max_output_error=0.1)
    with pytest.raises(InputError, match="leave it out with app"):
        check_target(request, directory=tmp_path)


@pytest.mark.parametrize(
    ("values", "in_flight"),
    # Three batches for each replica: one is computed, one waits, one is on its way.
    [({}, 3), ({"batch_size": 8}, 24), ({"batch_size": 8, "replicas": 3}, 72)],
)
def test_every_replicas_batch_queue_is_kept_full(values: dict[str, int], in_flight: int) -> None:
    model = ModelTarget(ModelReference(Reference("shop:ranker")))
    assert model.concurrency(Configuration(values)) == in_flight


@pytest.mark.parametrize(
    ("values", "in_flight"),
    [
        ({"batch_size": 8, "replicas": 3}, 48),
        ({"concurrency": 4, "replicas": 2}, 16),
        # Serve gives a replica five requests at once where the deployment does not say.
        ({"replicas": 2}, 20),
        ({"quality": 3}, 10),
    ],
)
def test_an_app_is_loaded_by_what_its_space_says(values: dict[str, int], in_flight: int) -> None:
    assert AppTarget(Reference("shop:build")).concurrency(Configuration(values)) == in_flight


def test_an_app_may_declare_what_saturates_it(tmp_path: Path) -> None:
    declared = ("build_method =", "def build_concurrency(c): return 7 * c['batch_size']\nx =")
    target = app(tmp_path, declared).target
    assert target.concurrency(Configuration({"batch_size": 2})) == 14


@pytest.mark.parametrize("returned", ["0", "'many'", "1 / 0"])
def test_a_wrong_declaration_of_what_saturates_an_app_is_refused(
    tmp_path: Path, returned: str
) -> None:
    declared = ("build_method =", f"def build_concurrency(c): return {returned}\nx =")
    with pytest.raises(InputError, match="build_concurrency"):
        app(tmp_path, declared)
