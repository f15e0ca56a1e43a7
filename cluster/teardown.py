"""Ending a cluster: its nodes first, then all that was made for them, found by tags.

It works with the journal lost, and any number of times. What this machine keeps of the cluster is
kept until the account is clean; the results bucket outlives it unless it is to be deleted.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from botocore.exceptions import ClientError

from cluster.account import discovery
from cluster.account.discovery import Kind, Thing
from cluster.account.ownership import SEEN_WITHIN_S
from cluster.account.patience import Patience
from cluster.account.removal import Failure, Remover
from cluster.aws_errors import calling, explained
from cluster.clients import Clients
from cluster.state.directory import StateDirectory
from falcon_ray.errors import ClusterError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TornDown:
    """What became of a cluster; nothing but `kept` is left of it.

    Attributes:
        removed: What there was, in words; empty where there was nothing.
        kept: Names of buckets that hold results.
    """

    removed: tuple[str, ...]
    kept: tuple[str, ...]


def tear_down(
    name: str,
    clients: Clients,
    state: StateDirectory,
    *,
    delete_bucket: bool,
    patience: Patience | None = None,
) -> TornDown:
    """End everything of the clusters of this name in the account and region.

    Args:
        name: The cluster's.
        clients: Of its account and region.
        state: What this machine keeps of it; removed once nothing is left.
        delete_bucket: Whether its results go as well. Buckets of earlier clusters of the name
            are only deleted where no cluster stands any more.
        patience: How to wait.

    Raises:
        ClusterError: Another command works on it, it is in another account or region, or
            something could not be removed; the message says what is left.
    """
    with state.locked(), calling(f"ending cluster {name!r}"):
        account_id = check_place(state, clients)
        intend = state.journal.intend if state.journal.identity else _unnoted
        remover = Remover(clients, patience or Patience(), account_id, intend)
        found = _seen(name, remover, state)
        ids = {each.cluster_id for each in found} | _ids(state)
        kept = discovery.buckets(clients, name=name, account_id=account_id)
        doomed = _doomed(kept, ids) if delete_bucket else ()
        failures = remove((*found, *doomed), remover)
        buckets = [str(each.thing) for each in failures if each.thing.kind is Kind.BUCKET]
        if left := (*leftovers(name, clients), *buckets):
            raise ClusterError(_what_is_left(name, left, failures))
        state.remove()
        return TornDown(
            removed=tuple(str(each) for each in (*found, *doomed)),
            kept=tuple(each.thing_id for each in kept if each not in doomed),
        )


def remove(found: Sequence[Thing], remover: Remover) -> tuple[Failure, ...]:
    """Remove things of ours; where nodes do not end, nothing else of their cluster is touched."""
    failures: list[Failure] = []
    stuck = set[str]()
    for cluster_id in sorted({each.cluster_id for each in found if each.kind is Kind.INSTANCE}):
        try:
            reason = "it has not ended yet"
            nodes = remover.end_nodes(cluster_id)
        except ClientError as error:
            reason = str(explained(error, doing="ending nodes"))
            nodes = discovery.nodes(remover.clients, cluster_id=cluster_id)
        if nodes:
            stuck.add(cluster_id)
            failures += [Failure(each, reason) for each in nodes]
    order = list(Kind)
    rest = [e for e in found if e.kind is not Kind.INSTANCE and e.cluster_id not in stuck]
    failures += remover.remove(sorted(rest, key=lambda each: order.index(each.kind)))
    return tuple(failures)


def leftovers(name: str, clients: Clients) -> Sequence[str]:
    """What stands of clusters of this name, in words, apart from buckets with results."""
    with calling(f"looking for what is left of cluster {name!r}"):
        return tuple(str(each) for each in discovery.things(clients, name=name))


def prospect(
    name: str, clients: Clients, state: StateDirectory, *, delete_bucket: bool
) -> Sequence[str]:
    """What `tear_down` would remove, in words; nothing is changed.

    Raises:
        ClusterError: The cluster is in another account or region.
    """
    with calling(f"looking for what is left of cluster {name!r}"):
        account_id = check_place(state, clients)
        found = discovery.things(clients, name=name)
        if delete_bucket:
            ids = {each.cluster_id for each in found} | _ids(state)
            found += _doomed(discovery.buckets(clients, name=name, account_id=account_id), ids)
        return tuple(str(each) for each in found)


def check_place(state: StateDirectory, clients: Clients) -> str:
    """The account of the credentials, in which the cluster must be, as far as is known here.

    Raises:
        ClusterError: It was made in another account or region.
    """
    with calling("asking who the caller is"):
        account_id = clients.sts.get_caller_identity()["Account"]
    identity = state.journal.identity
    if identity is None:
        return account_id
    place, here = (identity.account_id, identity.region), (account_id, clients.region)
    if place != here:
        raise ClusterError(
            f"cluster {identity.name!r} was made in account {place[0]}, {place[1]}, but the "
            f"credentials and the region given are those of {here[0]}, {here[1]}; give the others "
            "(--profile, and the cluster's file)"
        )
    return account_id


def _ids(state: StateDirectory) -> set[str]:
    """Of the cluster that the journal knows, if any."""
    return {state.journal.identity.cluster_id} if state.journal.identity else set()


def _doomed(buckets: Sequence[Thing], ids: set[str]) -> tuple[Thing, ...]:
    """The buckets that go with clusters of these ids, or all where there is no cluster."""
    return tuple(each for each in buckets if not ids or each.cluster_id in ids)


def _seen(name: str, remover: Remover, state: StateDirectory) -> tuple[Thing, ...]:
    """What there is; looked for longer where the journal knows of something."""

    def look() -> tuple[Thing, ...]:
        return discovery.things(remover.clients, name=name)

    waits_s = SEEN_WITHIN_S if state.journal.may_exist("vpc") else 0.0
    return remover.patience.until(look, timeout_s=waits_s)


def _unnoted(what: str) -> None:
    logger.info("to be removed: %s", what)


def _what_is_left(name: str, left: Sequence[str], failures: Sequence[Failure]) -> str:
    why = "; ".join(dict.fromkeys(each.reason for each in failures))
    return (
        f"of cluster {name!r} there is still {', '.join(left)}"
        f"{f' ({why})' if why else ''}; run python -m cluster down again"
    )
