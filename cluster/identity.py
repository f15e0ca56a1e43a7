"""Which cluster of which account: its id, and all names and tags that follow from it.

Names carry the id, so that no two clusters ever meet in one. The module calls nothing.
"""

import datetime as dt
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cluster.tags import ID, MANAGED, as_list, tags_of

PREFIX = "falcon-ray"


def new_cluster_id() -> str:
    """Eight hexadecimal digits that no cluster had before, as good as surely."""
    return secrets.token_hex(4)


def iam_path(region: str) -> str:
    """Where the roles of a region's clusters are; IAM itself knows no regions."""
    return f"/{PREFIX}/{region}/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """One cluster that was begun.

    Attributes:
        name: As in its spec.
        cluster_id: See `new_cluster_id`.
        region: Of AWS.
        account_id: Of AWS.
        partition: Of AWS, "aws" nearly everywhere.
        expires_at: When its nodes have all ended themselves; then it may be reaped.
    """

    name: str
    cluster_id: str
    region: str
    account_id: str
    partition: str
    expires_at: dt.datetime

    @property
    def full_name(self) -> str:
        """What the network, the security group and the key pair are called."""
        return f"{PREFIX}-{self.name}-{self.cluster_id}"

    @property
    def tags(self) -> Mapping[str, str]:
        """What everything of this cluster carries; only the first four keys are ever relied on."""
        ours = tags_of(name=self.name, cluster_id=self.cluster_id, expires_at=self.expires_at)
        return {**ours, "Name": self.full_name}

    def specification(self, resource_type: str) -> list[dict[str, object]]:
        """The tags as calls of EC2 take them that make something."""
        return [{"ResourceType": resource_type, "Tags": as_list(self.tags)}]

    @property
    def filters(self) -> list[dict[str, object]]:
        """What lets calls of EC2 describe only things of this cluster."""
        return [
            {"Name": f"tag:{MANAGED}", "Values": ["true"]},
            {"Name": f"tag:{ID}", "Values": [self.cluster_id]},
        ]

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether something that carries these tags belongs to this cluster."""
        return tags.get(MANAGED) == "true" and tags.get(ID) == self.cluster_id

    @property
    def head_role(self) -> str:
        """The head's role, and its instance profile."""
        return f"{self.full_name}-head"

    @property
    def worker_role(self) -> str:
        """The workers' role, and their instance profile."""
        return f"{self.full_name}-worker"

    def iam_arn(self, kind: str, name: str) -> str:
        """The ARN of our role or instance-profile of this name."""
        path = iam_path(self.region)
        return f"arn:{self.partition}:iam::{self.account_id}:{kind}{path}{name}"

    @property
    def bucket(self) -> str:
        """Where results are kept; at most 57 characters of the 63 that there may be."""
        return f"{PREFIX}-{self.name}-{self.account_id}-{self.cluster_id}"
