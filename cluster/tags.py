"""The tags that say which things in an account are ours, and of which cluster.

They are given in the very call that makes a thing, so that nothing of ours is ever without them.
"""

import datetime as dt
from collections.abc import Mapping, Sequence

MANAGED = "falcon-ray:managed"
CLUSTER = "falcon-ray:cluster"
ID = "falcon-ray:id"
EXPIRES_AT = "falcon-ray:expires-at"


def tags_of(*, name: str, cluster_id: str, expires_at: dt.datetime) -> Mapping[str, str]:
    """The tags of everything that belongs to one cluster."""
    return {
        MANAGED: "true",
        CLUSTER: name,
        ID: cluster_id,
        EXPIRES_AT: expires_at.astimezone(dt.UTC).isoformat(timespec="seconds"),
    }


def end_in(tags: Mapping[str, str]) -> dt.datetime | None:
    """When the time of what carries these tags is over; None where they do not say it readably."""
    try:
        date = dt.datetime.fromisoformat(tags.get(EXPIRES_AT, ""))
    except ValueError:
        return None
    return date if date.tzinfo is not None else None


def as_list(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Tags as most calls of AWS take them."""
    return [{"Key": key, "Value": value} for key, value in sorted(tags.items())]


def as_mapping(tags: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Tags as most calls of AWS return them."""
    return {each["Key"]: each["Value"] for each in tags}
