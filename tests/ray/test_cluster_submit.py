"""A search submitted to a head whose home is laid out as the cluster file says."""

import dataclasses
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cluster.clients import Clients
from cluster.jobs import logs, submit
from cluster.provisioned import Provisioned
from cluster.ray_config import file_mounts
from falcon_ray.errors import ClusterError
from tests.ray.aws_server import aws_server, calling
from tests.ray.heads import Head, started_head
from tests.unit.cluster.made_clusters import TOKEN, in_account, package, provisioned

# A head with a dashboard, and a search.
pytestmark = [
    *(pytest.mark.ray, pytest.mark.aws, pytest.mark.slow, pytest.mark.timeout(300)),
    # Ray's client of jobs gives it to aiohttp.
    pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning"),
]

ROOT = Path(__file__).parents[2]
QUICKSTART = (ROOT / "scripts" / "quickstart").read_text(encoding="utf-8")
SHORT = (
    *("--max-trials", "1", "--no-confirm", "--warm-up-s", "0.5", "--measure-s", "1"),
    *("--output-dir", "mine"),
)


@dataclass(frozen=True)
class Place:
    """A head, the cluster that it belongs to, and what is submitted.

    Attributes:
        head: That runs.
        made: The cluster.
        clients: Of its account.
        checkout: A clean copy of this one.
    """

    head: Head
    made: Provisioned
    clients: Clients
    checkout: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    scratch = tmp_path_factory.mktemp("submit")
    home, checkout = scratch / "home", scratch / "checkout"
    compiled = shutil.ignore_patterns("__pycache__")
    for folder in ("falcon_ray", "scripts"):
        shutil.copytree(ROOT / folder, checkout / folder, ignore=compiled)
    for file in (".gitignore", ".rayignore", "pyproject.toml"):
        shutil.copy(ROOT / file, checkout)
    with aws_server() as environment, calling(environment) as clients:
        made = in_account(provisioned(scratch), clients)
        lay_out(home, file_mounts(made, package(scratch)))
        with started_head(scratch, **environment, HOME=str(home), RAY_AUTH_TOKEN=TOKEN) as head:
            yield Place(head, made, clients, checkout)


def lay_out(home: Path, mounts: Mapping[str, str]) -> None:
    """As Ray's launcher copies files to a node."""
    for there, here in mounts.items():
        target = home / there.removeprefix("~/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(here, target)


@pytest.fixture(scope="module")
def searched(place: Place) -> tuple[int, list[str]]:
    """The search of the quickstart, with one short trial."""
    (model,) = re.findall(r" search (\w+) --max-trials", QUICKSTART)
    lines: list[str] = []
    code = submit(
        [model, *SHORT],
        place.made,
        place.head.dashboard,
        checkout=place.checkout,
        say=lines.append,
    )
    return code, lines


def last(lines: list[str]) -> dict[str, Any]:
    return json.loads(lines[-1])


def test_the_quickstarts_search_runs_on_the_head_and_its_results_land_in_the_bucket(
    place: Place, searched: tuple[int, list[str]]
) -> None:
    code, lines = searched
    assert code == 0, "\n".join(lines)
    assert any(line.startswith("Trial 1: ") for line in lines)
    assert last(lines)["recommended"]
    assert last(lines)["exit_code"] == 0
    assert last(lines)["results"] == f"s3://{place.made.bucket}/runs/mine/"
    found = place.clients.s3.list_objects_v2(Bucket=place.made.bucket, Prefix="runs/mine/")
    keys = {each["Key"].rpartition("/")[2] for each in found["Contents"]}
    assert keys >= {"journal.jsonl", "report.json", "trials.csv", "serve.yaml"}


def test_the_log_of_the_last_search_is_shown_again(
    place: Place, searched: tuple[int, list[str]]
) -> None:
    lines: list[str] = []
    assert logs(None, place.made, place.head.dashboard, say=lines.append) == 0
    assert last(lines) == last(searched[1])


def test_a_search_that_is_refused_ends_with_its_own_exit_code(place: Place) -> None:
    lines: list[str] = []
    code = submit(
        ["mobilenet_v3", "--max-trails", "1"],
        place.made,
        place.head.dashboard,
        checkout=place.checkout,
        say=lines.append,
    )
    assert code == 2, "\n".join(lines)
    assert "--max-trails" in last(lines)["error"]


def test_another_clusters_token_is_refused_in_one_line(place: Place, tmp_path: Path) -> None:
    other = tmp_path / "token"
    other.write_text("f" * 64)
    made = dataclasses.replace(place.made, token_file=other)
    with pytest.raises(ClusterError, match=r"does not answer at .* refuses our token") as raised:
        logs(None, made, place.head.dashboard)
    assert "\n" not in str(raised.value)
