"""Ending all clusters whose time is over, whoever made them and whatever became of that machine.

Only tags are believed. The latest date on anything of a cluster counts, for `up` puts it off. A
thing of ours without a date that can be read keeps its cluster alive, and is reported.
"""

import datetime as dt
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from cluster.account import discovery
from cluster.account.discovery import Thing
from cluster.account.patience import Patience
from cluster.account.removal import Remover
from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.tags import CLUSTER, EXPIRES_AT, end_in
from cluster.teardown import remove

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reaped:
    """One cluster whose time was over.

    Attributes:
        name: As its tags say.
        cluster_id: Likewise.
        expired_at: When its time was over.
        removed: What there was of it, in words; with `dry_run`, what there is.
        left: What could not be removed, in words, with the reason where it is known.
    """

    name: str
    cluster_id: str
    expired_at: dt.datetime
    removed: tuple[str, ...]
    left: tuple[str, ...]


def reap(
    clients: Clients, *, now: dt.datetime, dry_run: bool, patience: Patience | None = None
) -> Sequence[Reaped]:
    """End every cluster of the account and region whose time is over; buckets are kept.

    Args:
        clients: Of the account and region.
        now: The time, with its zone.
        dry_run: Only say which.
        patience: How to wait.
    """
    with calling("reaping clusters whose time is over"):
        account_id = clients.sts.get_caller_identity()["Account"]
        remover = Remover(clients, patience or Patience(), account_id)
        clusters: dict[str, list[Thing]] = defaultdict(list)
        for each in discovery.things(clients):
            clusters[each.cluster_id].append(each)
        reaped: list[Reaped] = []
        for cluster_id, found in sorted(clusters.items()):
            expired_at = _expires_at(found)
            if not cluster_id or expired_at is None or expired_at > now:
                continue
            failures = () if dry_run else remove(found, remover)
            left = () if dry_run else discovery.things(clients, cluster_id=cluster_id)
            reasons = {str(each.thing): each.reason for each in failures}
            reaped.append(
                Reaped(
                    name=found[0].tags.get(CLUSTER, ""),
                    cluster_id=cluster_id,
                    expired_at=expired_at,
                    removed=tuple(str(each) for each in found if each not in left),
                    left=tuple(reasons.get(str(each), str(each)) for each in left),
                )
            )
        return tuple(reaped)


def _expires_at(found: Sequence[Thing]) -> dt.datetime | None:
    dates: list[dt.datetime] = []
    for each in found:
        date = end_in(each.tags)
        if date is None:
            text = each.tags.get(EXPIRES_AT, "")
            logger.warning("%s says no time at which it expires (%r): not reaped", each, text)
            return None
        dates.append(date)
    return max(dates)
