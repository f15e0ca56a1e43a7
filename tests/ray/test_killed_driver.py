"""A search survives the death of its driver: whatever its journal holds is never lost."""

import json
import signal
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ray import serve

from falcon_ray.optimizers.registry import make_optimizer
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import SearchRecord, read_search
from falcon_ray.runtime import serve_apps
from tests.ray.processes import Command, own_ray

# One test waits for two searches.
pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

MAX_TRIALS = 3
OPTIONS = (
    *("--max-trials", str(MAX_TRIALS), "--no-confirm", "--warm-up-s", "0.5", "--measure-s", "1"),
    *("--search-space", "batch_size=1,2,4", "--search-space", "dtype=float32,bfloat16"),
    *("--search-space", "cpu_cores=1", "--search-space", "replicas=1"),
    *("--search-space", "batch_wait_ms=0", "--seed", "3"),
)
TRIAL_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Journal:
    """The journal of a search that is killed and resumed, as bytes and as events."""

    directory: Path

    def content(self) -> bytes:
        """All of it, up to the last whole line."""
        path = self.directory / "journal.jsonl"
        content = path.read_bytes() if path.exists() else b""
        return content[: content.rfind(b"\n") + 1]

    def n_events(self, name: str) -> int:
        """How many events of that name there are."""
        return len(_events(self.content(), name))


def _events(content: bytes, name: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in content.splitlines()]
    return [event for event in events if event["event"] == name]


@dataclass(frozen=True)
class KilledTwice:
    """What is left of a search whose driver was killed after its first two trials.

    Attributes:
        journal: Of the search.
        first: Its content after the first kill.
        second: Its content after the second, by when a resumed driver had gone on.
        leaked_apps: Serve applications that the second driver left running.
    """

    journal: Journal
    first: bytes
    second: bytes
    leaked_apps: tuple[str, ...]


@pytest.fixture(scope="module")
def killed_once(targets: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Journal, bytes]:
    """A search on a Ray of its own, killed as soon as its first trial is in the journal."""
    directory = tmp_path_factory.mktemp("killed")
    journal = Journal(directory / "run")
    with own_ray() as ray, _search(directory, ray.environment, targets) as command:
        _wait_for_trials(command, journal, 1)
        command.kill()
        ray.wait_until_gone(timeout_s=30, was_killed=True)
    return journal, journal.content()


@pytest.fixture(scope="module")
def killed_twice(
    killed_once: tuple[Journal, bytes], ray_address: str, local_environment: Mapping[str, str]
) -> Iterator[KilledTwice]:
    """The same search, resumed on a Ray that outlives it, and killed after the second trial."""
    journal, first = killed_once
    with _resume(journal, local_environment, "--address", ray_address) as command:
        _wait_for_trials(command, journal, 2)
        # From here on an app of the third trial is there to be left behind.
        command.wait_until(
            lambda: journal.n_events("trial_started") > 2 and serve.status().applications,
            "the third trial deploys",
            timeout_s=TRIAL_TIMEOUT_S,
        )
        command.kill()
    leaked = tuple(serve.status().applications)
    yield KilledTwice(journal, first, journal.content(), leaked)
    serve_apps.delete_all("falcon-", timeout_s=30)


@pytest.fixture(scope="module")
def finished(
    killed_twice: KilledTwice, ray_address: str, local_environment: Mapping[str, str]
) -> SearchRecord:
    """What the same search found once it was resumed and left alone."""
    journal = killed_twice.journal
    with _resume(journal, local_environment, "--address", ray_address) as command:
        assert command.wait(timeout_s=2 * TRIAL_TIMEOUT_S) == 0, command.output
    return read_search(journal.directory)


def test_the_ray_of_a_killed_driver_dies_with_it(killed_once: tuple[Journal, bytes]) -> None:
    # That no process was left is asserted where the driver is killed.
    _, content = killed_once
    assert len(_events(content, "trial_ended")) == 1


def test_a_resumed_search_measures_no_trial_again(
    killed_twice: KilledTwice, finished: SearchRecord
) -> None:
    content = killed_twice.journal.content()
    assert content.startswith(killed_twice.second)
    assert killed_twice.second.startswith(killed_twice.first)
    ended = _events(content, "trial_ended")
    assert len(ended) == MAX_TRIALS
    assert len({event["trial"] for event in ended}) == MAX_TRIALS
    configurations = [trial.observation.configuration for trial in finished.trials]
    assert len(set(configurations)) == MAX_TRIALS
    assert len(_events(content, "search_resumed")) == 2
    assert finished.end_reason == f"all {MAX_TRIALS} trials are done"


def test_a_trial_that_was_cut_off_is_tried_again_under_another_number(
    killed_twice: KilledTwice, finished: SearchRecord
) -> None:
    (cut_off,) = (
        event
        for event in _events(killed_twice.second, "trial_started")
        if event["trial"] == max(e["trial"] for e in _events(killed_twice.second, "trial_started"))
    )
    again = _events(killed_twice.journal.content(), "trial_started")[-1]
    assert again["configuration"] == cut_off["configuration"]
    assert again["trial"] == cut_off["trial"] + 1
    assert cut_off["trial"] in {each.number for each in finished.interrupted}


def test_a_killed_search_goes_on_as_one_that_never_was_killed(finished: SearchRecord) -> None:
    header = finished.header
    optimizer = make_optimizer(
        "bayesian",
        header.space,
        header.objective,
        np.asarray(header.pricing.usd_per_hour(header.space.candidates)),
        seed=header.seed,
    )
    for trial in finished.trials:
        suggestion = optimizer.suggest()
        assert suggestion is not None
        assert suggestion.configuration == trial.observation.configuration
        optimizer.observe(trial.observation)
    best, found = optimizer.recommend(), recommend(finished)
    assert best is not None
    assert isinstance(found, Recommendation)
    assert found.configuration == best.configuration


def test_the_apps_of_a_killed_driver_go_when_it_is_resumed(
    killed_twice: KilledTwice,
    finished: SearchRecord,  # noqa: ARG001 - it was resumed
) -> None:
    assert len(killed_twice.leaked_apps) == 1
    assert not serve.status().applications


@pytest.mark.usefixtures("no_app_left")
def test_ctrl_c_removes_the_app_and_says_how_to_go_on(
    targets: Path, tmp_path: Path, ray_address: str, local_environment: Mapping[str, str]
) -> None:
    journal = Journal(tmp_path / "run")
    with _search(tmp_path, local_environment, targets, "--address", ray_address) as command:
        command.wait_until(
            lambda: serve.status().applications,
            "the first trial deploys",
            timeout_s=TRIAL_TIMEOUT_S,
        )
        command.press_ctrl_c()
        assert command.wait(timeout_s=30) == 5, command.output
    assert f"falcon-ray search --resume {journal.directory}" in " ".join(command.output.split())
    assert "Traceback" not in command.output
    assert not serve.status().applications
    assert read_search(journal.directory).end_reason is None


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_group_ends_a_ray_of_its_own_as_well(
    targets: Path, tmp_path: Path, signal_number: signal.Signals
) -> None:
    with own_ray() as ray:
        journal = Journal(tmp_path / "run")
        with _search(tmp_path, ray.environment, targets) as command:
            command.wait_until(
                lambda: journal.n_events("trial_started"),
                "the first trial starts",
                timeout_s=TRIAL_TIMEOUT_S,
            )
            command.send_to_group(signal_number)
            assert command.wait(timeout_s=30) == 5, command.output
        assert "Traceback" not in command.output
        ray.wait_until_gone(timeout_s=15)


def _search(
    directory: Path, environment: Mapping[str, str], targets: Path, *arguments: str
) -> Command:
    return Command(
        *("falcon-ray", "search", f"{targets}/tiny.py:tiny", *OPTIONS),
        *("--output-dir", str(directory / "run"), *arguments),
        environment=environment,
        directory=directory,
    )


def _resume(journal: Journal, environment: Mapping[str, str], *arguments: str) -> Command:
    return Command(
        *("falcon-ray", "search", "--resume", str(journal.directory), *arguments),
        environment=environment,
        directory=journal.directory.parent,
    )


def _wait_for_trials(command: Command, journal: Journal, n: int) -> None:
    command.wait_until(
        lambda: journal.n_events("trial_ended") >= n,
        f"{n} trials have ended",
        timeout_s=TRIAL_TIMEOUT_S,
    )
