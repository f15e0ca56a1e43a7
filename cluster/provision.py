"""Making everything that a cluster's nodes need before Ray is started: as often as one likes.

What is there is kept, what is missing is made, what differs is put right. A command that ended in
between is gone on with, by the journal or, where that is lost, by the tags of what stands. The
module launches no node and does not know Ray.
"""

import datetime as dt
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

from cluster import policies
from cluster.account import discovery
from cluster.account.bucket import find_bucket, make_bucket
from cluster.account.discovery import Kind, Thing
from cluster.account.key_pair import make_key_pair
from cluster.account.network import Network, find_network, make_network
from cluster.account.ownership import Site
from cluster.account.patience import Patience
from cluster.account.preflight import HeadPlace, check_launch, check_permissions
from cluster.account.roles import find_profile, make_role
from cluster.account.security_group import find_security_groups, make_security_group
from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.identity import Identity, new_cluster_id
from cluster.planned import ClusterPlan
from cluster.provisioned import Provisioned
from cluster.spec import Market
from cluster.ssh_from import checked_network
from cluster.state.directory import StateDirectory
from cluster.tags import CLUSTER, EXPIRES_AT, end_in
from falcon_ray.errors import ClusterError


def provision(
    plan: ClusterPlan,
    clients: Clients,
    state: StateDirectory,
    *,
    now: dt.datetime,
    patience: Patience | None = None,
    new_id: Callable[[], str] = new_cluster_id,
) -> Provisioned:
    """Make the cluster's network, security group, key, roles and bucket, and its Ray token.

    Args:
        plan: What is to be made; `ssh_from` is filled in.
        clients: Of the plan's account and region.
        state: What this machine keeps of the cluster.
        now: The time, with its zone, from which its time to live counts.
        patience: How to wait.
        new_id: Names a cluster that was not begun yet.

    Raises:
        ClusterError: Another command works on it, its time is over while nodes run, the caller
            lacks a permission, something of its name is not ours, or AWS refuses; what was made
            stays, to be gone on with or ended.
        InputError: `ssh_from` is too wide.
    """
    ssh_from = checked_network(plan.spec.ssh_from)
    with state.locked(), calling(f"making cluster {plan.spec.name!r}"):
        state.prepare()
        begun = _begun(plan, clients, state, now=now, new_id=new_id)
        nodes = discovery.nodes(clients, cluster_id=begun.cluster_id)
        has_nodes = bool(nodes)
        if has_nodes and begun.expires_at <= now:
            raise ClusterError(
                f"the time of cluster {begun.name!r} was over at {begun.expires_at:%F %H:%M} UTC, "
                f"but {', '.join(map(str, nodes))} still runs; end it by python -m cluster down, "
                "and make it again"
            )
        identity = begun if has_nodes else _put_off(begun, plan, now)
        pinned = state.journal.image_id if has_nodes else None
        state.journal.begin(identity, image_id=pinned or plan.image.ami_id)
        site = Site(
            identity=identity,
            clients=clients,
            journal=state.journal,
            patience=patience or Patience(),
        )
        check_permissions(site, plan)
        network = make_network(site, _zones(plan))
        _mark_end(site, network.vpc_id)
        group_id = make_security_group(site, network.vpc_id, ssh_from=ssh_from)
        _make_token(state, has_nodes=has_nodes)
        key_name = make_key_pair(site, state, has_nodes=has_nodes)
        make_bucket(site)
        worker_arn = make_role(site, identity.worker_role, policies.of_worker(identity))
        launchable = _launchable(plan, network.vpc_id)
        head_arn = make_role(site, identity.head_role, policies.of_head(identity, launchable))
        place = HeadPlace(
            subnet_id=network.subnet_ids[min(plan.head.zones)],
            security_group_id=group_id,
            key_name=key_name,
            profile_arn=head_arn,
        )
        check_launch(site, plan, place)
        return _result(
            site, state, network, group_id=group_id, head_arn=head_arn, worker_arn=worker_arn
        )


def provisioned(name: str, clients: Clients, state: StateDirectory) -> Provisioned:
    """What stands of a cluster, looked up; nothing is changed.

    Raises:
        ClusterError: There is no cluster of this name, or it is not complete.
    """
    with calling(f"looking for cluster {name!r}"):
        found = discovery.things(clients, name=name)
        caller = clients.sts.get_caller_identity()
        identity = state.journal.identity
        here = (caller["Account"], clients.region)
        if identity is None or (identity.account_id, identity.region) != here:
            identity = _adopted(name, found, clients, caller_arn=caller["Arn"])
        ids = {each.cluster_id for each in found}
        if identity is None or identity.cluster_id not in ids:
            raise ClusterError(
                f"there is no cluster {name!r} in {clients.region} of account "
                f"{caller['Account']}; make it by python -m cluster up"
            )
        site = Site(identity=identity, clients=clients, journal=state.journal, patience=Patience())
        return _looked_up(site, state)


def steps(plan: ClusterPlan) -> Sequence[str]:
    """What `provision` would make, in words and in order; what is there already is kept."""
    zones, types = ", ".join(_zones(plan)), ", ".join(_types(plan))
    return (
        f"make a network (VPC) in {plan.spec.region} with public subnets in {zones}",
        f"make a security group that lets in SSH from {plan.spec.ssh_from} and the nodes' own talk",
        "make an SSH key pair and a Ray token, kept on this machine with mode 0600",
        "make a bucket for results, encrypted and private, which outlives the cluster",
        "make a role for workers, which may use the bucket",
        f"make a role for the head, which may also launch and end {types} of this cluster",
    )


def _begun(
    plan: ClusterPlan,
    clients: Clients,
    state: StateDirectory,
    *,
    now: dt.datetime,
    new_id: Callable[[], str],
) -> Identity:
    """The cluster that was begun, by the journal or by tags, or else a new one."""
    spec = plan.spec
    known = state.journal.identity
    if known is None:
        found = discovery.things(clients, name=spec.name)
        known = _adopted(spec.name, found, clients, caller_arn=plan.caller_arn)
    elif (known.account_id, known.region) != (plan.account_id, spec.region):
        raise ClusterError(
            f"cluster {spec.name!r} was made in account {known.account_id}, {known.region}; end "
            f"it there before you make it in account {plan.account_id}, {spec.region}, or choose "
            "another name"
        )
    return known or Identity(
        name=spec.name,
        cluster_id=new_id(),
        region=spec.region,
        account_id=plan.account_id,
        partition=plan.caller_arn.split(":")[1],
        expires_at=_end(plan, now),
    )


def _put_off(identity: Identity, plan: ClusterPlan, now: dt.datetime) -> Identity:
    """The cluster with its time counted from now; not while nodes run, which know theirs."""
    return replace(identity, expires_at=max(identity.expires_at, _end(plan, now)))


def _end(plan: ClusterPlan, now: dt.datetime) -> dt.datetime:
    end = now.astimezone(dt.UTC) + dt.timedelta(hours=plan.spec.ttl_hours)
    return end.replace(microsecond=0)  # as tags say it


def _adopted(
    name: str, found: Sequence[Thing], clients: Clients, *, caller_arn: str
) -> Identity | None:
    """The cluster that stands under this name, told by its tags; None where none does."""
    ids = sorted({each.cluster_id for each in found})
    if not ids:
        return None
    if len(ids) > 1:
        raise ClusterError(
            f"{len(ids)} clusters are called {name!r} ({', '.join(ids)}); end them all by "
            "python -m cluster down, or choose another name"
        )
    dates = [date for each in found if (date := end_in(each.tags))]
    if not dates:
        raise ClusterError(
            f"nothing of cluster {name!r} says when its time is over (tag {EXPIRES_AT}); end it by "
            "python -m cluster down, and make it again"
        )
    _, partition, *_, account_id, _ = caller_arn.split(":")
    return Identity(
        name=found[0].tags[CLUSTER],
        cluster_id=ids[0],
        region=clients.region,
        account_id=account_id,
        partition=partition,
        expires_at=max(dates),
    )


def _mark_end(site: Site, vpc_id: str) -> None:
    """Say on the VPC when the cluster's time is over, for that may have been put off."""
    tag = {"Key": EXPIRES_AT, "Value": site.identity.tags[EXPIRES_AT]}
    (vpc,) = site.usable(lambda: site.clients.ec2.describe_vpcs(VpcIds=[vpc_id]))["Vpcs"]
    if tag not in vpc["Tags"]:
        site.change(
            f"end of {vpc_id} at {tag['Value']}",
            lambda: site.clients.ec2.create_tags(Resources=[vpc_id], Tags=[tag]),
        )


def _zones(plan: ClusterPlan) -> tuple[str, ...]:
    return tuple(sorted({zone for node in (plan.head, *plan.workers) for zone in node.zones}))


def _types(plan: ClusterPlan) -> tuple[str, ...]:
    return tuple(sorted({each.instance.instance_type for each in plan.workers}))


def _launchable(plan: ClusterPlan, vpc_id: str) -> policies.Launchable:
    return policies.Launchable(
        instance_types=_types(plan),
        image_id=plan.image.ami_id,
        vpc_id=vpc_id,
        has_spot=any(each.market is Market.SPOT for each in plan.workers),
    )


def _make_token(state: StateDirectory, *, has_nodes: bool) -> None:
    if state.token_file.exists():
        return
    if has_nodes:
        raise ClusterError(
            f"nodes of cluster {state.name!r} run, but their Ray token is not at "
            f"{state.token_file}; work on the machine that the cluster was made on, or end it by "
            "python -m cluster down"
        )
    state.keep_secret(state.token_file, secrets.token_hex(32).encode())


def _looked_up(site: Site, state: StateDirectory) -> Provisioned:
    identity = site.identity
    network = find_network(site)
    groups = [] if network is None else find_security_groups(site, network.vpc_id)
    head_arn = find_profile(site, identity.head_role)
    worker_arn = find_profile(site, identity.worker_role)
    keys = [
        each
        for each in discovery.things(site.clients, cluster_id=identity.cluster_id)
        if each.kind is Kind.KEY_PAIR
    ]
    if (
        network is None
        or head_arn is None
        or worker_arn is None
        or not (network.subnet_ids and groups and keys and find_bucket(site))
    ):
        raise ClusterError(
            f"cluster {identity.name!r} is not complete: python -m cluster up goes on with it, "
            "python -m cluster down ends it"
        )
    known = site.journal.id_of("security group")
    return _result(
        site,
        state,
        network,
        group_id=known if known in groups else min(groups),
        head_arn=head_arn,
        worker_arn=worker_arn,
    )


def _result(
    site: Site,
    state: StateDirectory,
    network: Network,
    *,
    group_id: str,
    head_arn: str,
    worker_arn: str,
) -> Provisioned:
    identity = site.identity
    return Provisioned(
        cluster_id=identity.cluster_id,
        name=identity.name,
        region=identity.region,
        vpc_id=network.vpc_id,
        subnet_ids=network.subnet_ids,
        security_group_id=group_id,
        key_name=identity.full_name,
        private_key=state.private_key,
        token_file=state.token_file,
        head_profile_arn=head_arn,
        worker_profile_arn=worker_arn,
        bucket=identity.bucket,
        expires_at=identity.expires_at,
    )
