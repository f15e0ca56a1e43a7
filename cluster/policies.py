"""What the cluster's own machines may do in the account, as IAM and S3 read it.

The head may launch the cluster's workers, and nothing that is not one: on our network, from our
image, of the planned types, with IMDSv2, encrypted disks and the cluster's tags. It may end what
carries these tags. Head and workers may use the cluster's bucket. The module makes documents; it
calls nothing and does not know where they are put.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from cluster.identity import Identity
from cluster.tags import CLUSTER, ID, MANAGED

Document: TypeAlias = dict[str, Any]

_EC2 = "ec2.amazonaws.com"
_SPOT = "spot.amazonaws.com"
_VERSION = "2012-10-17"
_RAYS_TAGS = ("Name", "ray-*")
"""What Ray writes on nodes that run; the tags that say whose they are, it may not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Launchable:
    """What workers are made of.

    Attributes:
        instance_types: Those of the plan.
        image_id: What they boot from.
        vpc_id: Where they are.
        has_spot: Whether some of them are spot instances.
    """

    instance_types: Sequence[str]
    image_id: str
    vpc_id: str
    has_spot: bool


def trust() -> Document:
    """Only instances of EC2 take on our roles."""
    return _document(
        [
            {
                "Sid": "Instances",
                "Effect": "Allow",
                "Principal": {"Service": _EC2},
                "Action": "sts:AssumeRole",
            }
        ]
    )


def of_worker(identity: Identity) -> Document:
    """What a worker may do: use the bucket."""
    return _document(_bucket(identity))


def of_head(identity: Identity, launchable: Launchable) -> Document:
    """What the head may do: launch, mark and end workers, end itself, and use the bucket."""
    statements = [
        *_launching(identity, launchable),
        *_tagging(identity, launchable),
        _statement(
            "EndOwnNodes",
            ["ec2:TerminateInstances"],
            [_ec2_arn(identity, "instance/*")],
            {"StringEquals": {f"aws:ResourceTag/{ID}": identity.cluster_id}},
        ),
        # EC2 cannot restrict these to some resources.
        _statement("SeeNodes", ["ec2:DescribeInstances"], ["*"]),
        _statement(
            "GiveWorkersTheirRole",
            ["iam:PassRole"],
            [identity.iam_arn("role", identity.worker_role)],
            {"StringEquals": {"iam:PassedToService": _EC2}},
        ),
        *_bucket(identity),
    ]
    if launchable.has_spot:
        role = f"aws-service-role/{_SPOT}/AWSServiceRoleForEC2Spot"
        statements.append(
            # AWS's own role, which the first spot instance of an account needs.
            _statement(
                "LetAwsRunSpot",
                ["iam:CreateServiceLinkedRole"],
                [f"arn:{identity.partition}:iam::{identity.account_id}:role/{role}"],
                {"StringEquals": {"iam:AWSServiceName": _SPOT}},
            )
        )
    return _document(statements)


def of_bucket(identity: Identity) -> Document:
    """What nobody may do with the bucket, whatever else they may: talk to it in the clear."""
    bucket = f"arn:{identity.partition}:s3:::{identity.bucket}"
    return _document(
        [
            {
                "Sid": "OnlyByTls",
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:*",
                "Resource": [bucket, f"{bucket}/*"],
                "Condition": {"Bool": {"aws:SecureTransport": "false"}},
            }
        ]
    )


def as_text(document: Mapping[str, Any]) -> str:
    """A document as calls of AWS take it, the same for the same document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def _launching(identity: Identity, launchable: Launchable) -> list[Document]:
    run = ["ec2:RunInstances"]
    own = {"StringEquals": {f"aws:ResourceTag/{ID}": identity.cluster_id}}
    vpc = _ec2_arn(identity, f"vpc/{launchable.vpc_id}")
    return [
        _statement(
            "LaunchOnOwnNetwork",
            run,
            [_ec2_arn(identity, f"{each}/*") for each in ("key-pair", "security-group", "subnet")],
            own,
        ),
        _statement(
            "LaunchFromImage",
            run,
            [f"arn:{identity.partition}:ec2:{identity.region}::image/{launchable.image_id}"],
        ),
        _statement(
            "LaunchWithInterface",
            run,
            [_ec2_arn(identity, "network-interface/*")],
            {"ArnEquals": {"ec2:Vpc": vpc}},
        ),
        _statement(
            "LaunchWithEncryptedDisk",
            run,
            [_ec2_arn(identity, "volume/*")],
            {"Bool": {"ec2:Encrypted": "true"}},
        ),
        _statement(
            "LaunchWorkers",
            run,
            [_ec2_arn(identity, "instance/*")],
            {
                "StringEquals": {
                    **_requested(identity),
                    "ec2:InstanceType": sorted(set(launchable.instance_types)),
                    "ec2:MetadataHttpTokens": "required",
                },
                "ArnEquals": {
                    "ec2:InstanceProfile": identity.iam_arn(
                        "instance-profile", identity.worker_role
                    )
                },
            },
        ),
        *(
            [_statement("LaunchSpot", run, [_ec2_arn(identity, "spot-instances-request/*")])]
            if launchable.has_spot
            else []
        ),
    ]


def _tagging(identity: Identity, launchable: Launchable) -> list[Document]:
    tagged = ["instance", "network-interface", "volume"]
    tagged += ["spot-instances-request"] if launchable.has_spot else []
    return [
        _statement(
            "TagWhatIsLaunched",
            ["ec2:CreateTags"],
            [_ec2_arn(identity, f"{each}/*") for each in tagged],
            {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        ),
        _statement(
            "NoteStateOfOwnNodes",
            ["ec2:CreateTags"],
            [_ec2_arn(identity, "instance/*")],
            {
                "StringEquals": {f"aws:ResourceTag/{ID}": identity.cluster_id},
                "ForAllValues:StringLike": {"aws:TagKeys": list(_RAYS_TAGS)},
            },
        ),
    ]


def _requested(identity: Identity) -> dict[str, str]:
    return {
        f"aws:RequestTag/{MANAGED}": "true",
        f"aws:RequestTag/{CLUSTER}": identity.name,
        f"aws:RequestTag/{ID}": identity.cluster_id,
    }


def _bucket(identity: Identity) -> list[Document]:
    bucket = f"arn:{identity.partition}:s3:::{identity.bucket}"
    return [
        _statement(
            "FindResults",
            ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
            [bucket],
        ),
        _statement(
            "KeepResults",
            [
                "s3:AbortMultipartUpload",
                "s3:DeleteObject",
                "s3:GetObject",
                "s3:ListMultipartUploadParts",
                "s3:PutObject",
            ],
            [f"{bucket}/*"],
        ),
    ]


def _ec2_arn(identity: Identity, resource: str) -> str:
    return f"arn:{identity.partition}:ec2:{identity.region}:{identity.account_id}:{resource}"


def _statement(
    sid: str,
    actions: Sequence[str],
    resources: Sequence[str],
    condition: Mapping[str, Any] | None = None,
) -> Document:
    statement: Document = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": list(actions),
        "Resource": list(resources),
    }
    return statement if condition is None else {**statement, "Condition": dict(condition)}


def _document(statements: Sequence[Document]) -> Document:
    return {"Version": _VERSION, "Statement": list(statements)}
