"""What stands in the account for one cluster, before Ray is started on it.

The module knows ids. It does not know how they came to be.
"""

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Provisioned:
    """Everything that a cluster's nodes need to be launched, by its id.

    Attributes:
        cluster_id: Eight hexadecimal digits, one for each cluster that was ever made.
        name: The cluster's, as in its spec.
        region: Of AWS.
        vpc_id: The network.
        subnet_ids: By availability zone.
        security_group_id: Lets in SSH from one network, and the cluster's nodes among themselves.
        key_name: The key pair's.
        private_key: Its private half, mode 0600.
        token_file: The cluster's Ray token, mode 0600.
        head_profile_arn: Instance profile of the head.
        worker_profile_arn: Instance profile of the workers.
        bucket: Where results are kept; it outlives the cluster.
        expires_at: When the last of its nodes has ended itself, as the tags of all things say.
    """

    cluster_id: str
    name: str
    region: str
    vpc_id: str
    subnet_ids: Mapping[str, str]
    security_group_id: str
    key_name: str
    private_key: Path
    token_file: Path
    head_profile_arn: str
    worker_profile_arn: str
    bucket: str
    expires_at: dt.datetime

    @property
    def ray_name(self) -> str:
        """The cluster's name to Ray, which ends nodes by that name alone."""
        return f"{self.name}-{self.cluster_id}"
