"""An account at moto's, with credentials that are none."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from moto import mock_aws

from cluster.clients import Clients
from tests.unit.cluster.made_clusters import REGION
from tests.unit.cluster.plan_fakes import PLAN_AMI, PLAN_AMI_PARAMETER, PlanPricing, PlanQuotas
from tests.unit.cluster.plan_terminal import PlanTerminal


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """An empty one."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with mock_aws():
        yield Clients.connect(REGION)


@pytest.fixture(scope="module")  # planning changes nothing, so its tests may share one
def plan_account() -> Iterator[Clients]:
    """All that planning asks; the quotas are ample and the Price List knows nothing."""
    with pytest.MonkeyPatch.context() as monkeypatch, mock_aws():
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        clients = Clients.connect("us-east-1")
        clients.ssm.put_parameter(Name=PLAN_AMI_PARAMETER, Value=PLAN_AMI, Type="String")
        yield replace(clients, quotas=PlanQuotas(), pricing=PlanPricing())


@pytest.fixture
def terminal(
    plan_account: Clients, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> PlanTerminal:
    """In front of that account, with the default file."""
    return PlanTerminal(plan_account, tmp_path, capsys)
