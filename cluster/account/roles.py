"""The roles of head and workers, and the instance profiles by which nodes take them on.

What the roles may do is for `policies.py` to say. IAM shows what was done only after a while, so
each step waits, within bounds, for the one before it.
"""

from typing import Any

from botocore.exceptions import ClientError

from cluster import policies
from cluster.account.ownership import SEEN_WITHIN_S, USABLE_WITHIN_S, Site, foreign
from cluster.account.patience import is_missing
from cluster.aws_errors import code_of
from cluster.identity import iam_path
from cluster.tags import as_list, as_mapping
from falcon_ray.errors import ClusterError

POLICY_NAME = "falcon-ray"


def make_role(site: Site, name: str, policy: policies.Document) -> str:
    """The ARN of an instance profile with a role of its own that may do what `policy` says.

    Args:
        site: What it is made with.
        name: Of role and profile alike.
        policy: The one policy of the role; it replaces what stood there.

    Raises:
        ClusterError: A role or profile of this name is not ours, or does not come to be seen.
    """
    _role(site, name)
    _policy(site, name, policy)
    profile = _profile(site, name)
    if not profile["Roles"]:
        site.change(
            f"role in profile {name}",
            lambda: site.clients.iam.add_role_to_instance_profile(
                InstanceProfileName=name, RoleName=name
            ),
        )
    complete = site.patience.until(lambda: _complete(site, name), timeout_s=USABLE_WITHIN_S)
    if complete is None:
        raise ClusterError(
            f"instance profile {name!r} does not show its role after {USABLE_WITHIN_S:g} s; run "
            "the command again, which goes on from here"
        )
    return complete["Arn"]


def find_profile(site: Site, name: str) -> str | None:
    """The ARN of our instance profile; None where there is none that has its role."""
    profile = _complete(site, name)
    return None if profile is None else profile["Arn"]


def _complete(site: Site, name: str) -> dict[str, Any] | None:
    profile = _seen_profile(site, name)
    if profile is None or not profile["Roles"]:
        return None
    return profile if site.identity.owns(as_mapping(profile.get("Tags", []))) else None


def _seen_role(site: Site, name: str) -> dict[str, Any] | None:
    return _or_none(lambda: site.clients.iam.get_role(RoleName=name)["Role"])


def _seen_profile(site: Site, name: str) -> dict[str, Any] | None:
    def get() -> dict[str, Any]:
        return site.clients.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]

    return _or_none(get)


def _role(site: Site, name: str) -> None:
    iam, identity = site.clients.iam, site.identity

    def find() -> list[str]:
        role = _seen_role(site, name)
        if role is None:
            return []
        site.must_own("role", name, as_mapping(role.get("Tags", [])))
        return [role["Arn"]]

    def make() -> str:
        try:
            return iam.create_role(
                Path=iam_path(identity.region),
                RoleName=name,
                AssumeRolePolicyDocument=policies.as_text(policies.trust()),
                Description=f"Nodes of the falcon_ray cluster {identity.name}",
                Tags=as_list(identity.tags),
            )["Role"]["Arn"]
        except ClientError as error:
            return _taken(site, "role", name, find, error)

    site.find_or_make(f"role {name}", find=find, make=make)


def _policy(site: Site, name: str, policy: policies.Document) -> None:
    iam = site.clients.iam

    def get() -> dict[str, Any]:
        return iam.get_role_policy(RoleName=name, PolicyName=POLICY_NAME)["PolicyDocument"]

    if _or_none(get) != policy:
        site.change(
            f"policy of {name}",
            lambda: iam.put_role_policy(
                RoleName=name,
                PolicyName=POLICY_NAME,
                PolicyDocument=policies.as_text(policy),
            ),
        )


def _profile(site: Site, name: str) -> dict[str, Any]:
    iam, identity = site.clients.iam, site.identity

    def find() -> list[str]:
        profile = _seen_profile(site, name)
        if profile is None:
            return []
        site.must_own("instance profile", name, as_mapping(profile.get("Tags", [])))
        return [profile["Arn"]]

    def make() -> str:
        try:
            return iam.create_instance_profile(
                Path=iam_path(identity.region),
                InstanceProfileName=name,
                Tags=as_list(identity.tags),
            )["InstanceProfile"]["Arn"]
        except ClientError as error:
            return _taken(site, "instance profile", name, find, error)

    site.find_or_make(f"instance profile {name}", find=find, make=make)
    return site.usable(
        lambda: iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
    )


def _taken(site: Site, what: str, name: str, find: Any, error: ClientError) -> str:  # noqa: ANN401
    """What to do with a name that is taken although nothing of that name was seen."""
    if code_of(error) != "EntityAlreadyExists":
        raise error
    if found := site.patience.until(find, timeout_s=SEEN_WITHIN_S):
        return found[0]
    raise foreign(what, name, site.identity) from error


def _or_none(get: Any) -> Any:  # noqa: ANN401 - as boto3 returns it
    try:
        return get()
    except ClientError as error:
        if is_missing(error):
            return None
        raise
