"""The clients of AWS that everything else is given: the one seam between us and the account.

Nothing else makes a client, reads credentials or knows how calls are retried.
"""

from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config

PRICING_REGION = "us-east-1"
_CONFIG = Config(
    retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=30
)


@dataclass(frozen=True, slots=True)
class Clients:
    """One boto3 client for each service; they are typed by what boto3 makes at run time.

    Attributes:
        region: The cluster's.
        ec2: Instances and networks.
        iam: Roles.
        s3: The results bucket.
        ssm: Parameters that name machine images.
        sts: Who the caller is.
        quotas: Service quotas.
        pricing: The Price List, which only some regions serve.
    """

    region: str
    ec2: Any
    iam: Any
    s3: Any
    ssm: Any
    sts: Any
    quotas: Any
    pricing: Any

    @classmethod
    def connect(cls, region: str, *, profile: str | None = None) -> "Clients":
        """Clients with the caller's credentials; nothing is called yet."""
        session = boto3.Session(profile_name=profile, region_name=region)

        def client(service: str, where: str = region) -> Any:  # noqa: ANN401 - made at run time
            return session.client(service, region_name=where, config=_CONFIG)

        return cls(
            region=region,
            ec2=client("ec2"),
            iam=client("iam"),
            s3=client("s3"),
            ssm=client("ssm"),
            sts=client("sts"),
            quotas=client("service-quotas"),
            pricing=client("pricing", PRICING_REGION),
        )
