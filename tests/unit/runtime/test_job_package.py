import re
import zipfile
from importlib.metadata import version
from pathlib import Path

from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env import constants
from ray._private.runtime_env.packaging import create_package

from falcon_ray.runtime import job_package
from falcon_ray.runtime.job_package import is_job, own_version, package_size, run_directory

ROOT = Path(__file__).parents[3]
IN_JOB = {job_package.JOB_VARIABLE: "{}"}


def test_a_job_is_known_by_what_ray_sets_for_it() -> None:
    assert constants.RAY_JOB_CONFIG_JSON_ENV_VAR == job_package.JOB_VARIABLE
    assert is_job(IN_JOB)
    assert not is_job({})


def test_a_job_keeps_its_runs_outside_the_directory_that_is_deleted_after_it() -> None:
    assert run_directory("mine", IN_JOB) == Path.home() / "falcon_ray/runs/mine"
    assert run_directory(None, IN_JOB).parent == Path.home() / "falcon_ray/runs"
    assert run_directory("/data/mine", IN_JOB) == Path("/data/mine")


def test_without_a_job_a_run_directory_is_where_it_is_named() -> None:
    assert run_directory("mine", {}) == Path("mine")
    assert run_directory(None, {}).parent == Path("runs")


def test_the_environment_may_say_where_runs_are_kept() -> None:
    named = {job_package.RUNS_VARIABLE: "~/elsewhere"}
    assert run_directory(None, named).parent == Path.home() / "elsewhere"
    assert run_directory("mine", named | IN_JOB) == Path.home() / "elsewhere/mine"


def test_searches_that_begin_in_the_same_second_have_directories_of_their_own() -> None:
    names = {run_directory(None, {}).name for _ in range(10)}
    assert len(names) == 10
    assert all(re.fullmatch(r"search-\d{8}T\d{6}Z-[0-9a-f]{4}", name) for name in names)


def test_a_jobs_package_is_counted_without_what_python_compiled(tmp_path: Path) -> None:
    (tmp_path / "a" / "__pycache__").mkdir(parents=True)
    (tmp_path / "a" / "b.py").write_bytes(b"x" * 2**20)
    (tmp_path / "a" / "__pycache__" / "b.pyc").write_bytes(b"y" * 2**20)
    assert str(package_size(tmp_path)) == "1.0 MiB in 1 files"


def test_what_a_job_uploads_is_the_package_and_the_entry_points(tmp_path: Path) -> None:
    package = tmp_path / "package.zip"
    excludes = get_runtime_env_default_excludes()
    create_package(str(ROOT), package, include_gitignore=True, excludes=excludes)
    names = {each for each in zipfile.ZipFile(package).namelist() if not each.endswith("/")}
    assert {"scripts/search.py", "scripts/profile.py", "scripts/report.py"} <= names
    assert {"falcon_ray/data/gpus.csv", "falcon_ray/data/profile/manifest.json"} <= names
    folders = {name.split("/")[0] for name in names if "/" in name}
    assert folders == {"falcon_ray", "scripts"}
    assert package.stat().st_size < 10 * 2**20


def test_the_version_is_that_of_the_directory_where_nothing_is_installed() -> None:
    assert own_version() == version("falcon-ray")
    assert own_version("not-installed-anywhere") == version("falcon-ray")
