import datetime as dt
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.clients import Clients
from cluster.surroundings import Surroundings
from tests.unit.cluster.plan_fakes import (
    PlanPricing,
    PlanQuotas,
    Without,
    denied,
    product,
    quotas_of,
    unreachable,
)
from tests.unit.cluster.plan_terminal import HOME, PlanTerminal

pytestmark = pytest.mark.aws

ROOT = Path(__file__).parents[3]


def test_plan_shows_nodes_prices_with_their_age_and_what_an_hour_costs(
    terminal: PlanTerminal,
) -> None:
    listed = {"g4dn.2xlarge": [product("us-east-1", "0.7")]}
    terminal.clients = replace(terminal.clients, pricing=PlanPricing(listed))
    terminal.run("plan", terminal.file)
    assert terminal.exit_code == 0, terminal.err
    out = terminal.out
    assert "Cluster falcon in us-east-1, account 123456789012, as arn:aws:sts::" in out
    assert f"SSH from {HOME} only" in out
    assert "today [2]" in out
    assert "[2] AWS Price List, us-east-1" in out
    assert "7 days old [1]" in out
    assert "[1] one public price list; no live source checked" in out
    # As in the tests of planning: 0.192 + 150 * 0.08 / 730 + 0.005, and four workers more.
    assert "best       0.21 USD/h" in out
    assert "worst      7.21 USD/h" in out
    assert "57.66 USD at the very most in the 8 h" in out  # 7.2074 * 8
    assert "Running On-Demand G and VT instances (L-DB2E81BA): 64 vCPUs, up to 32" in out


def test_plan_as_json_is_one_document(terminal: PlanTerminal) -> None:
    terminal.run("plan", "--config", terminal.file, "--json")
    assert terminal.exit_code == 0, terminal.err
    document = json.loads(terminal.out)
    assert document["nodes"][0]["name"] == "head"
    assert document["nodes"][1] == {
        "name": "g4dn-2xlarge-on-demand",
        "instance_type": "g4dn.2xlarge",
        "market": "on-demand",
        "max_workers": 2,
        "gpu_type": "T4",
        "n_gpus": 1,
        "vcpus": 8,
        "ram_gib": 32.0,
        "usd_per_hour": 0.752,
        "price_date": "2026-11-24",
        "price_age_days": 7,
        "price_origin": "two public price lists agree; no live source checked",
        "most_usd_per_hour": None,
        "zones": ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1f"],
    }
    assert document["nodes"][2]["most_usd_per_hour"] == 0.752
    assert document["refusals"] == []


def test_refused_plan_is_shown_all_the_same_and_ends_with_the_reasons(
    terminal: PlanTerminal,
) -> None:
    terminal.clients = replace(
        terminal.clients, quotas=PlanQuotas(quotas_of(g_on_demand=0, g_spot=0))
    )
    terminal.run("plan", terminal.file)
    assert terminal.exit_code == 4
    assert "worst" in terminal.out
    second, first = terminal.err.splitlines()
    assert "(L-DB2E81BA) is 0 vCPUs" in first
    assert "(L-3819A6DF) is 0 vCPUs" in second


def test_budget_below_the_cheapest_plan_ends_with_6(terminal: PlanTerminal) -> None:
    terminal.change("max_usd_per_hour: 10", "max_usd_per_hour: 0.1")
    line = terminal.fails("up", terminal.file, "--yes", code=6)
    assert "max_usd_per_hour is 0.1, but the head with one worker of the cheapest type" in line


def test_worst_hour_above_the_limit_ends_with_6(terminal: PlanTerminal) -> None:
    terminal.change("max_usd_per_hour: 10", "max_usd_per_hour: 7")
    assert "but the worst hour costs 7.21 USD" in terminal.fails("up", terminal.file, code=6)


def test_retired_type_ends_with_2(terminal: PlanTerminal) -> None:
    terminal.change("gpu: T4, market: spot", "instance_type: p2.xlarge, market: spot")
    line = terminal.fails("plan", terminal.file, code=2)
    assert line.startswith("cluster: p2.xlarge (K80) is retired")


def test_mistake_in_the_file_ends_with_2(terminal: PlanTerminal) -> None:
    terminal.change("ttl_hours:", "ttl_hour:")
    line = terminal.fails("plan", terminal.file, code=2)
    assert "cluster.yaml: unknown key 'ttl_hour' (did you mean ttl_hours?)" in line


def test_missing_permission_ends_with_4_and_is_named(terminal: PlanTerminal) -> None:
    error = denied("DescribeImages", "ec2:DescribeImages")
    terminal.clients = replace(
        terminal.clients, ec2=Without(terminal.clients.ec2, describe_images=error)
    )
    line = terminal.fails("plan", terminal.file, code=4)
    assert "the caller may not ec2:DescribeImages; ask the account's administrator" in line


def test_no_credentials_end_with_4(
    terminal: PlanTerminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    line = terminal.fails("plan", terminal.file, code=4, connect=Surroundings().connect)
    assert line.startswith(
        "cluster: asking who the caller is: no AWS credentials (Unable to locate"
    )


def test_unknown_profile_ends_with_2(
    terminal: PlanTerminal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    connect = Surroundings().connect
    line = terminal.fails("plan", terminal.file, "--profile", "me", code=2, connect=connect)
    assert "profile (me) could not be found; run aws configure list-profiles" in line


def test_two_files_are_one_too_many(terminal: PlanTerminal) -> None:
    line = terminal.fails("plan", terminal.file, "--config", "other.yaml", code=2)
    assert "two files are given" in line


@pytest.mark.parametrize("arguments", [["plan", "--nonsense"], ["nonsense"], ["plan", "a", "b"]])
def test_usage_mistakes_end_with_2(arguments: Sequence[str], terminal: PlanTerminal) -> None:
    terminal.run(*arguments)
    assert terminal.exit_code == 2
    assert "Usage: python -m cluster" in terminal.err


def test_up_asks_and_no_is_the_answer_that_changes_nothing(terminal: PlanTerminal) -> None:
    line = terminal.fails("up", terminal.file, code=2)
    assert terminal.questions == ["Make it, for at most 7.21 USD/h?"]
    assert line == "cluster: not confirmed; nothing was changed"
    assert "worst" in terminal.out  # what is asked about was shown


def test_up_without_anybody_to_answer_ends_with_2(
    terminal: PlanTerminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Path("/dev/null").open() as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        line = terminal.fails("up", terminal.file, code=2, confirm=Surroundings().confirm)
    assert "give --yes if it shall be done" in line


def test_errors_of_aws_that_nobody_explained_end_with_4(terminal: PlanTerminal) -> None:
    def connect(*_: object) -> Clients:
        raise unreachable()

    line = terminal.fails("plan", terminal.file, code=4, connect=connect)
    assert line.startswith("cluster: calling AWS: AWS cannot be reached")


def test_ctrl_c_ends_in_one_line(terminal: PlanTerminal) -> None:
    def interrupt() -> dt.datetime:
        raise KeyboardInterrupt

    terminal.run("plan", terminal.file, now=interrupt)
    assert terminal.exit_code == 130
    assert terminal.err.strip() == (  # after a line break, for the terminal shows ^C
        "cluster: interrupted; run the command again to go on, or down to undo"
    )


def no_network(*_: object) -> Clients:
    raise AssertionError


def test_catalogue_lists_every_row_without_asking_anybody(terminal: PlanTerminal) -> None:
    terminal.run("catalogue", connect=no_network)
    assert terminal.exit_code == 0, terminal.err
    assert "On demand in us-east-1, Linux" in terminal.out
    assert "p6-b200.48xlarge" in terminal.out
    assert "p2.xlarge *" in terminal.out
    assert "7 days old [1]" in terminal.out


def test_catalogue_of_another_region_says_whose_prices_these_are(terminal: PlanTerminal) -> None:
    terminal.run("catalogue", "--region", "eu-west-1", "--json", connect=no_network)
    document = json.loads(terminal.out)
    (row,) = [each for each in document["instances"] if each["instance_type"] == "g4dn.2xlarge"]
    assert row["region"] == "eu-west-1"
    assert row["price_origin"].startswith("price of us-east-1: ")
    assert (row["price_date"], row["price_age_days"]) == ("2026-11-24", 7)


def test_refreshed_catalogue_is_kept_for_later(terminal: PlanTerminal) -> None:
    pricing = PlanPricing({"g4dn.2xlarge": [product("us-east-1", "0.7")]})
    terminal.clients = replace(terminal.clients, pricing=pricing)
    terminal.run("catalogue", "--refresh", "--json")
    assert terminal.exit_code == 0, terminal.err
    asked = {each["instanceType"] for each in pricing.asked}
    assert "g6.2xlarge" in asked
    assert "p2.xlarge" not in asked  # retired: nobody sells it
    for arguments in ((), ("--json",)):
        terminal.run("catalogue", *arguments, connect=no_network)
        assert "AWS Price List, us-east-1" in terminal.out
    (row,) = [
        each
        for each in json.loads(terminal.out)["instances"]
        if each["instance_type"] == "g4dn.2xlarge"
    ]
    assert (row["usd_per_hour"], row["price_age_days"]) == (0.7, 0)


def test_refresh_without_a_price_list_lists_what_is_known(terminal: PlanTerminal) -> None:
    terminal.clients = replace(terminal.clients, pricing=PlanPricing(error=unreachable()))
    terminal.run("catalogue", "--refresh")
    assert terminal.exit_code == 0
    assert "AWS cannot be reached" in terminal.out
    assert "older prices hold" in terminal.out


def test_help_of_the_checkout_names_all_verbs_and_loads_neither_ray_nor_torch() -> None:
    code = (
        "import sys; sys.argv = ['cluster', '--help']\n"
        "import runpy\n"
        "try: runpy.run_module('cluster', run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 0\n"
        "assert not {'ray', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    verbs = ["plan", "up", "status", "submit", "logs", "tunnel", "down", "reap", "catalogue"]
    for verb in verbs:
        assert f"\n  {verb} " in done.stdout
