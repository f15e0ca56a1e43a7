import subprocess
import sys
import warnings

import pytest

import falcon_ray

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what Ray warns of when it is imported is not ours to mend
    from falcon_ray.runtime import search_job, search_trials

HEAVY = ("ray", "torch")


def loaded_by(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after this code."""
    said = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint('loaded:', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    _, _, names = said.stdout.rpartition("loaded:")
    return {name.partition(".")[0] for name in names.split()} & {*HEAVY, "falcon_ray"}


def run_cli(*arguments: str) -> str:
    return f"sys.argv[1:] = {list(arguments)}\nfrom falcon_ray.cli import main\nmain()"


def test_importing_the_package_loads_neither_ray_nor_torch() -> None:
    assert loaded_by("import falcon_ray") == {"falcon_ray"}


@pytest.mark.parametrize("arguments", [["--help"], ["search", "--help"]])
def test_help_loads_neither_ray_nor_torch(arguments: list[str]) -> None:
    assert loaded_by(run_cli(*arguments)) == {"falcon_ray"}


def test_a_space_can_be_made_without_ray_and_torch() -> None:
    made = "import falcon_ray\nfalcon_ray.ConfigurationSpace.of({'batch_size': [1]})"
    assert loaded_by(made) == {"falcon_ray"}


def test_using_a_searcher_loads_ray() -> None:
    assert "ray" in loaded_by("import falcon_ray\nfalcon_ray.FalconSearch")


def test_everything_public_resolves() -> None:
    for name in falcon_ray.__all__:
        assert getattr(falcon_ray, name).__name__ == name


def test_public_names_are_the_objects_of_their_own_modules() -> None:
    assert falcon_ray.SearchResult is search_job.SearchResult
    assert falcon_ray.FalconSearch is search_trials.FalconSearch
    assert falcon_ray.Configuration is search_trials.Configuration


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'falcon_ray' has no attribute 'Searcher'"):
        _ = falcon_ray.Searcher


def test_a_search_without_a_target_is_refused_before_ray_is_touched() -> None:
    with pytest.raises(ValueError, match="name what to serve"):
        falcon_ray.search()


def test_a_misspelt_option_of_a_search_says_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown key 'max_trails'; did you mean 'max_trials'"):
        falcon_ray.search("resnet50", max_trails=3)
