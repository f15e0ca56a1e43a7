import json
from pathlib import Path

import pytest

from tests.unit.cluster.plan_terminal import PlanTerminal

pytestmark = pytest.mark.aws


@pytest.fixture(autouse=True)
def _own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FALCON_RAY_CLUSTERS", str(tmp_path / "clusters"))


def test_up_with_dry_run_says_what_would_be_made_and_makes_nothing(terminal: PlanTerminal) -> None:
    terminal.run("up", terminal.file, "--dry-run")
    assert terminal.exit_code == 0, terminal.err
    assert "would make a bucket for results" in terminal.out
    assert terminal.questions == []
    assert not (terminal.directory / "clusters").exists()
    terminal.run("down", terminal.file, "--dry-run")
    assert terminal.out == "there is nothing of falcon\n"


def test_up_with_dry_run_as_json_is_the_plan_with_its_steps(terminal: PlanTerminal) -> None:
    terminal.run("up", terminal.file, "--dry-run", "--json")
    assert terminal.exit_code == 0, terminal.err
    document = json.loads(terminal.out)
    assert document["nodes"][0]["name"] == "head"
    assert any(each.startswith("make a network") for each in document["steps"])


@pytest.mark.parametrize("verb", ["status", "logs", "tunnel"])
def test_verbs_for_a_cluster_that_is_not_there_end_with_4(
    verb: str, terminal: PlanTerminal
) -> None:
    line = terminal.fails(verb, "--config", terminal.file, code=4)
    assert "there is no cluster 'falcon' in us-east-1" in line


def test_submit_takes_the_options_of_a_search(terminal: PlanTerminal) -> None:
    arguments = ("--config", terminal.file, "--", "--model", "a:b", "--json", "--help")
    line = terminal.fails("submit", *arguments, code=4)
    assert "there is no cluster 'falcon' in us-east-1" in line


def test_down_asks_and_no_is_the_answer_that_changes_nothing(terminal: PlanTerminal) -> None:
    assert "nothing was changed" in terminal.fails("down", terminal.file, code=2)
    assert terminal.questions == ["Remove falcon in us-east-1, all but its results?"]


def test_down_of_nothing_is_done(terminal: PlanTerminal) -> None:
    terminal.run("down", terminal.file, "--yes")
    assert terminal.exit_code == 0, terminal.err
    assert terminal.out.splitlines() == ["there was nothing of falcon", "nothing is left"]


def test_reap_asks_unless_it_only_looks(terminal: PlanTerminal) -> None:
    assert "nothing was changed" in terminal.fails("reap", terminal.file, code=2)
    terminal.run("reap", "--region", "us-east-1", "--dry-run")
    assert terminal.exit_code == 0, terminal.err
    assert terminal.out == "no cluster's time is over in us-east-1\n"
    terminal.run("reap", terminal.file, "--yes", "--json")
    assert json.loads(terminal.out) == []
