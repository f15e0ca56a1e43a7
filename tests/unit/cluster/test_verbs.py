import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.surroundings import Surroundings
from tests.unit.cluster.account.emulated import (
    DryRunEc2,
    TaggingS3,
)
from tests.unit.cluster.account.standing import snapshot
from tests.unit.cluster.plan_terminal import NOW, PlanTerminal
from tests.unit.cluster.stand_ins import HEAD, stand_ins

pytestmark = pytest.mark.aws

VERBS = ("plan", "up", "status", "submit", "logs", "tunnel", "down", "reap", "catalogue")


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


def test_verbs_are_shown_without_loading_ray_or_an_account() -> None:
    code = (
        "import sys\n"
        "from cluster.entry_point import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "finally:\n"
        "    assert 'ray' not in sys.modules\n"
    )
    root = Path(__file__).parents[3]
    for command in (["-c", code], ["-m", "cluster", "--help"]):
        said = subprocess.run(
            [sys.executable, *command], cwd=root, check=True, capture_output=True, text=True
        )
        for verb in VERBS:
            assert f"\n  {verb} " in said.stdout


def test_a_profile_that_is_not_there_is_bad_input(
    terminal: PlanTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, str(terminal.directory / "none"))
    line = terminal.fails(
        *("plan", terminal.file, "--profile", "nobody"), code=2, connect=Surroundings().connect
    )
    assert "profile (nobody) could not be found" in line
    assert "aws configure list-profiles" in line


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


def test_a_cluster_goes_up_is_looked_at_and_comes_down_by_its_verbs(
    terminal: PlanTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(terminal.directory, monkeypatch)
    plain = terminal.clients
    before = snapshot(plain)
    terminal.clients = replace(plain, ec2=DryRunEc2(plain.ec2), s3=TaggingS3(plain.s3))
    terminal.answer = True

    terminal.run("up", terminal.file)
    assert terminal.exit_code == 0, terminal.err
    (question,) = terminal.questions
    assert question.startswith("Make it, for at most ")
    up, ends, what_next = terminal.out.splitlines()[-3:]
    assert up.startswith(
        f"falcon is up, its head is ubuntu@{HEAD}; results go to falcon-ray-falcon"
    )
    assert ends == "its nodes end themselves at 2026-12-01 20:00 UTC"  # 12 h + 8 h to live
    assert "submit" in what_next

    terminal.run("up", terminal.file, "--yes", "--json")
    assert terminal.exit_code == 0, terminal.err
    made = json.loads(terminal.out)
    assert made["head"] == f"ubuntu@{HEAD}"
    assert Path(made["token_file"]).read_text() not in terminal.out + terminal.err

    # It lets nobody read without TLS, which to moto is nobody at all.
    plain.s3.delete_bucket_policy(Bucket=made["bucket"])
    terminal.run("status", terminal.file, "--json")
    assert terminal.exit_code == 0, terminal.err
    found = json.loads(terminal.out)
    assert (found["cluster_id"], found["hours_left"]) == (made["cluster_id"], 8.0)
    terminal.run("status", terminal.file)
    assert terminal.out.startswith("falcon (")

    # Its program of ssh, which plays no tunnel, is as far as these come.
    for verb in (("submit", "--config", terminal.file, "--", "mobilenet_v3"), ("logs",)):
        arguments = verb if len(verb) > 1 else (*verb, "--config", terminal.file)
        assert "ssh" in terminal.fails(*arguments, code=4)

    terminal.run("down", terminal.file, "--dry-run", "--json")
    would = json.loads(terminal.out)["would_remove"]
    assert f"VPC {made['vpc_id']}" in would
    assert f"bucket {made['bucket']}" not in would
    terminal.run("down", terminal.file, "--dry-run", "--delete-bucket")
    assert terminal.out.splitlines()[-1] == f"would remove bucket {made['bucket']}"

    terminal.run("reap", terminal.file, "--dry-run", now=lambda: NOW.replace(day=2))
    assert terminal.out.splitlines()[0] == (
        f"falcon ({made['cluster_id']}), over since 2026-12-01 20:00:"
    )
    assert f"  would remove VPC {made['vpc_id']}" in terminal.out.splitlines()

    terminal.run("down", terminal.file, "--yes")
    assert terminal.exit_code == 0, terminal.err
    assert f"removed VPC {made['vpc_id']}" in terminal.out.splitlines()
    assert terminal.out.splitlines()[-1] == f"kept {made['bucket']}"
    terminal.run("down", terminal.file, "--yes", "--delete-bucket", "--json")
    assert json.loads(terminal.out) == {"removed": [f"bucket {made['bucket']}"], "kept": []}
    assert snapshot(plain) == before
