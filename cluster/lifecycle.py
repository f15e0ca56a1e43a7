"""A planned cluster brought up, reached, and taken down: the order of what others do.

The module decides nothing and calls neither AWS nor Ray; the modules it calls do.
"""

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from cluster import launcher
from cluster.clients import Clients
from cluster.jobs import submit as submit_job
from cluster.package import build
from cluster.planned import ClusterPlan
from cluster.provision import provision, provisioned
from cluster.provisioned import Provisioned
from cluster.ray_config import render
from cluster.state.directory import StateDirectory
from cluster.teardown import TornDown, tear_down
from cluster.tunnel import tunnel

_CHECKOUT = Path(__file__).parent.parent


def bring_up(
    plan: ClusterPlan, clients: Clients, state: StateDirectory, *, now: dt.datetime
) -> tuple[Provisioned, str]:
    """Make what is planned, or finish what was begun, and start Ray on it.

    Returns:
        What there is now, and the head's address.
    """
    with state.locked():
        made = provision(plan, clients, state, now=now)
        package = build(_CHECKOUT, state.path)
        launcher.launch(render(plan, made, package), state)
        return made, launcher.head_address(state)


def bring_down(
    name: str, clients: Clients, state: StateDirectory, *, delete_bucket: bool
) -> TornDown:
    """End Ray if it can be reached, then everything, found by tag; works again where it failed."""
    with state.locked():
        launcher.stop(state)
        return tear_down(name, clients, state, delete_bucket=delete_bucket)


@contextmanager
def dashboard_of(name: str, clients: Clients, state: StateDirectory) -> Iterator[str]:
    """The dashboard of a running cluster on a loopback address, until the context exits."""
    made = provisioned(name, clients, state)
    with tunnel(made, launcher.head_address(state)) as address:
        yield address


def submit(arguments: Sequence[str], name: str, clients: Clients, state: StateDirectory) -> int:
    """Run a search as a job on a running cluster, follow its log, and give its exit code."""
    made = provisioned(name, clients, state)
    with tunnel(made, launcher.head_address(state)) as address:
        return submit_job(arguments, made, address)
