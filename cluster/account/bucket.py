"""Where results are kept: a bucket of the cluster's own, encrypted, private, by TLS alone.

Names of buckets are taken all over the world, so ours carries account and cluster, and every call
says whose it must be. Objects are not versioned. The module does not know what results are.
"""

from collections.abc import Callable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from cluster import policies
from cluster.account.ownership import Site, foreign
from cluster.aws_errors import code_of
from cluster.clients import Clients
from cluster.tags import as_list, as_mapping

_FIRST_REGION = "us-east-1"
"""The one region that S3 does not want to be named."""
_ABSENT = frozenset(
    {
        "NoSuchBucketPolicy",
        "NoSuchLifecycleConfiguration",
        "NoSuchPublicAccessBlockConfiguration",
        "ServerSideEncryptionConfigurationNotFoundError",
    }
)
_PRIVACY = "PublicAccessBlockConfiguration"
_ENCRYPTION = "ServerSideEncryptionConfiguration"
_PRIVATE = {
    "BlockPublicAcls": True,
    "BlockPublicPolicy": True,
    "IgnorePublicAcls": True,
    "RestrictPublicBuckets": True,
}
_ENCRYPTED = {
    "Rules": [
        {
            "ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"},
            "BucketKeyEnabled": False,
        }
    ]
}
_NO_HALVES = {
    "Rules": [
        {
            "ID": "uploads-never-finished",
            "Status": "Enabled",
            "Filter": {"Prefix": ""},
            "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
        }
    ]
}


def tags_of_bucket(clients: Clients, bucket: str, account_id: str) -> Mapping[str, str] | None:
    """The bucket's tags, none where it is not ours to ask; None where there is no such bucket."""
    try:
        answer = clients.s3.get_bucket_tagging(Bucket=bucket, ExpectedBucketOwner=account_id)
    except ClientError as error:
        match code_of(error):
            case "NoSuchBucket" | "404":
                return None
            case "NoSuchTagSet":
                return {}
            case "AccessDenied" if "not authorized to perform" not in str(error):
                return {}  # another account's
        raise
    return as_mapping(answer["TagSet"])


def make_bucket(site: Site) -> str:
    """The bucket's name, which is its id.

    Raises:
        ClusterError: A bucket of this name is there and is not ours.
    """
    identity = site.identity
    bucket = identity.bucket

    def find() -> list[str]:
        tags = tags_of_bucket(site.clients, bucket, identity.account_id)
        if tags is None:
            return []
        if not tags and site.journal.may_exist("bucket"):
            _tag(site)  # made, but not marked: the command ended in between
            return [bucket]
        site.must_own("bucket", bucket, tags)
        return [bucket]

    site.find_or_make("bucket", find=find, make=lambda: _create(site))
    _settings(site)
    return bucket


def find_bucket(site: Site) -> str | None:
    """The bucket's name; None where there is none that is ours."""
    tags = tags_of_bucket(site.clients, site.identity.bucket, site.identity.account_id)
    return site.identity.bucket if tags and site.identity.owns(tags) else None


def _create(site: Site) -> str:
    identity, s3 = site.identity, site.clients.s3
    made: dict[str, Any] = {"Tags": as_list(identity.tags)}
    if identity.region != _FIRST_REGION:
        made["LocationConstraint"] = identity.region
    try:
        s3.create_bucket(
            Bucket=identity.bucket,
            CreateBucketConfiguration=made,
            ObjectOwnership="BucketOwnerEnforced",
        )
    except ClientError as error:
        if code_of(error) in {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}:
            raise foreign("bucket", identity.bucket, identity) from error
        raise
    tags = site.usable(lambda: _must_be_seen(site))
    if not identity.owns(tags):
        _tag(site)  # where S3 does not take tags with the bucket
    return identity.bucket


def _must_be_seen(site: Site) -> Mapping[str, str]:
    try:
        return as_mapping(
            site.clients.s3.get_bucket_tagging(**_ours(site))["TagSet"],
        )
    except ClientError as error:
        if code_of(error) == "NoSuchTagSet":
            return {}
        raise


def _tag(site: Site) -> None:
    site.clients.s3.put_bucket_tagging(
        **_ours(site), Tagging={"TagSet": as_list(site.identity.tags)}
    )


def _ours(site: Site) -> dict[str, str]:
    return {"Bucket": site.identity.bucket, "ExpectedBucketOwner": site.identity.account_id}


def _settings(site: Site) -> None:
    s3, ours = site.clients.s3, _ours(site)
    policy = policies.as_text(policies.of_bucket(site.identity))

    def asked(get: Callable[[], Any]) -> Any:  # noqa: ANN401 - as boto3 returns it
        return site.usable(lambda: _set(get))

    if asked(lambda: s3.get_public_access_block(**ours)[_PRIVACY]) != _PRIVATE:
        site.change(
            "privacy of the bucket",
            lambda: s3.put_public_access_block(**ours, **{_PRIVACY: _PRIVATE}),
        )
    encryption = asked(lambda: s3.get_bucket_encryption(**ours)[_ENCRYPTION])
    if encryption is None or not _encrypts(encryption):
        site.change(
            "encryption of the bucket",
            lambda: s3.put_bucket_encryption(**ours, **{_ENCRYPTION: _ENCRYPTED}),
        )
    if asked(lambda: s3.get_bucket_policy(**ours)["Policy"]) != policy:
        site.change("policy of the bucket", lambda: s3.put_bucket_policy(**ours, Policy=policy))
    if not asked(lambda: s3.get_bucket_lifecycle_configuration(**ours)["Rules"]):
        site.change(
            "lifecycle of the bucket",
            lambda: s3.put_bucket_lifecycle_configuration(
                **ours, LifecycleConfiguration=_NO_HALVES
            ),
        )


def _encrypts(configuration: Mapping[str, Any]) -> bool:
    return any("ApplyServerSideEncryptionByDefault" in each for each in configuration["Rules"])


def _set(get: Callable[[], Any]) -> Any:  # noqa: ANN401 - as boto3 returns it
    """What is set, or None where nothing is."""
    try:
        return get()
    except ClientError as error:
        if code_of(error) in _ABSENT:
            return None
        raise
