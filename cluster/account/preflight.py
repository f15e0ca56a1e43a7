"""Whether the caller may do what is about to be done, asked of EC2 before anything is made.

EC2 answers a call with `DryRun` by whether it would be permitted. IAM and S3 have no such thing;
their first refusal names the permission as well. Whether there is quota or capacity is not asked.
"""

from collections.abc import Callable
from dataclasses import dataclass

from botocore.exceptions import ClientError

from cluster.account.network import VPC_NETWORK
from cluster.account.ownership import USABLE_WITHIN_S, Site
from cluster.aws_errors import code_of, missing_permission
from cluster.planned import ClusterPlan
from falcon_ray.errors import ClusterError

_PERMITTED = "DryRunOperation"
_PROBE_KEY = b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadPlace:
    """Where the head would be launched.

    Attributes:
        subnet_id: One of the head's zones.
        security_group_id: Ours.
        key_name: Ours.
        profile_arn: The head's instance profile.
    """

    subnet_id: str
    security_group_id: str
    key_name: str
    profile_arn: str


def check_permissions(site: Site, plan: ClusterPlan) -> None:
    """Find out all at once which permissions the caller lacks to make a cluster.

    Raises:
        ClusterError: Some; the message names them.
    """
    ec2, identity = site.clients.ec2, site.identity
    refused = [
        _refused(
            lambda: ec2.create_vpc(
                CidrBlock=VPC_NETWORK,
                TagSpecifications=identity.specification("vpc"),
                DryRun=True,
            )
        ),
        _refused(
            lambda: ec2.create_internet_gateway(
                TagSpecifications=identity.specification("internet-gateway"), DryRun=True
            )
        ),
        _refused(
            lambda: ec2.import_key_pair(
                KeyName=identity.full_name,
                PublicKeyMaterial=_PROBE_KEY,
                TagSpecifications=identity.specification("key-pair"),
                DryRun=True,
            )
        ),
        _refused(
            lambda: ec2.run_instances(
                ImageId=plan.image.ami_id,
                InstanceType=plan.head.instance.instance_type,
                MinCount=1,
                MaxCount=1,
                MetadataOptions={"HttpTokens": "required"},
                TagSpecifications=identity.specification("instance"),
                DryRun=True,
            )
        ),
    ]
    missing = list(dict.fromkeys(each for each in refused if each))
    if missing:
        raise ClusterError(
            f"{plan.caller_arn} may not {', '.join(missing)}, so nothing was made; ask the "
            "account's administrator for "
            f"{'that permission' if len(missing) == 1 else 'these permissions'}"
        )


def check_launch(site: Site, plan: ClusterPlan, place: HeadPlace) -> None:
    """Wait until EC2 would launch the head as it stands: it learns late of instance profiles.

    Raises:
        ClusterError: The caller may not launch it, or the profile does not become known in time.
    """
    ec2 = site.clients.ec2

    def launch() -> None:
        ec2.run_instances(
            ImageId=plan.image.ami_id,
            InstanceType=plan.head.instance.instance_type,
            MinCount=1,
            MaxCount=1,
            SubnetId=place.subnet_id,
            SecurityGroupIds=[place.security_group_id],
            KeyName=place.key_name,
            IamInstanceProfile={"Arn": place.profile_arn},
            MetadataOptions={"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            TagSpecifications=site.identity.specification("instance"),
            DryRun=True,
        )

    try:
        site.patience.through(launch, _is_unknown_profile, timeout_s=USABLE_WITHIN_S)
    except ClientError as error:
        if code_of(error) == _PERMITTED:
            return
        if _is_unknown_profile(error):
            raise ClusterError(
                f"EC2 does not know instance profile {place.profile_arn} after "
                f"{USABLE_WITHIN_S:g} s; run python -m cluster up again, which goes on from here"
            ) from error
        raise


def _is_unknown_profile(error: ClientError) -> bool:
    return (
        code_of(error) == "InvalidParameterValue" and "instance profile" in str(error).lower()
    ) or code_of(error) == "InvalidIamInstanceProfileArn.NotFound"


def _refused(call: Callable[[], object]) -> str | None:
    """The permission that is missing; None where the call would go through, or fail otherwise."""
    try:
        call()
    except ClientError as error:
        return missing_permission(error)
    return None
