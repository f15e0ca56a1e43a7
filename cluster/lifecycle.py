"""A planned cluster brought up, reached, and taken down: the order of what others do.

The module decides nothing and calls neither AWS nor Ray; the modules it calls do.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster import jobs, launcher
from cluster.clients import Clients
from cluster.package import Package, build
from cluster.planned import ClusterPlan
from cluster.provision import provision, provisioned
from cluster.provisioned import Provisioned
from cluster.ray_config import render
from cluster.running import with_image_of_head
from cluster.state.directory import StateDirectory
from cluster.teardown import TornDown, check_place, tear_down
from cluster.tunnel import tunnel

_CHECKOUT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Known:
    """A cluster by its name, and how it is reached from here.

    Attributes:
        name: As in its spec.
        clients: Of its account and region.
        state: What this machine keeps of it.
        profile: Whose credentials Ray's launcher uses; None for the usual ones.
    """

    name: str
    clients: Clients
    state: StateDirectory
    profile: str | None


def known(name: str, clients: Clients, profile: str | None) -> Known:
    """The cluster of this name, whether there is one or not."""
    return Known(name, clients, StateDirectory.of(name), profile)


def bring_up(
    plan: ClusterPlan,
    cluster: Known,
    *,
    now: dt.datetime,
    say: Callable[[str], object],
    pack: Callable[[Path, Path], Package] = build,
    ray: Sequence[str] = launcher.RAY,
) -> tuple[Provisioned, str]:
    """Make what is planned, or finish what was begun, and start Ray on it.

    Args:
        plan: What is to be made; a head that runs keeps its machine image all the same.
        cluster: Where.
        now: The time, with its zone.
        say: Takes a line about what is being done.
        pack: From our checkout and a directory, makes what nodes get.
        ray: The command of Ray's launcher.

    Returns:
        What there is now, and the head, as ssh takes it.
    """
    state = cluster.state
    with state.locked():
        kept = with_image_of_head(plan, cluster.clients)
        if kept.image != plan.image:
            say(f"the head runs from {kept.image.ami_id}, which is kept until down")
        made = provision(kept, cluster.clients, state, now=now)
        config = render(kept, made, pack(_CHECKOUT, state.path))
        launcher.launch(config, state, profile=cluster.profile, say=say, ray=ray)
        return made, launcher.head_address(state, profile=cluster.profile, ray=ray)


def bring_down(
    cluster: Known, *, delete_bucket: bool, ray: Sequence[str] = launcher.RAY
) -> TornDown:
    """Let Ray end its nodes, as far as it can, then remove all that carries our tags.

    It may be called again, and needs neither Ray nor what this machine keeps of the cluster.
    """
    with cluster.state.locked():
        check_place(cluster.state, cluster.clients)
        launcher.stop(cluster.state, profile=cluster.profile, ray=ray)
        return tear_down(cluster.name, cluster.clients, cluster.state, delete_bucket=delete_bucket)


def submit(arguments: Sequence[str], cluster: Known) -> int:
    """Run a search on a cluster that is up, follow its log, and give its exit code."""
    with dashboard_of(cluster) as (made, address):
        return jobs.submit(arguments, made, address)


def follow(job: str | None, cluster: Known) -> int:
    """Follow the log of a job, or of the latest, and give its exit code."""
    with dashboard_of(cluster) as (made, address):
        return jobs.logs(job, made, address)


@contextmanager
def dashboard_of(cluster: Known) -> Iterator[tuple[Provisioned, str]]:
    """What there is of a cluster that is up, and its dashboard's address on this machine."""
    made = provisioned(cluster.name, cluster.clients, cluster.state)
    head = launcher.head_address(cluster.state, profile=cluster.profile)
    with tunnel(made, head) as address:
        yield made, address
