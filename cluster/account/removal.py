"""Taking things of ours apart, in an order in which nothing hangs on what is already gone.

Nodes end first, and are waited for; the VPC goes last. What cannot be removed yet, because AWS
still shows something that hangs on it, is tried again for a while. The module removes what it is
given; what that may be is for `discovery.py` and the tags to say.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import ClientError

from cluster.account.discovery import Kind, Thing, nodes
from cluster.account.patience import Patience, is_in_use, is_missing
from cluster.aws_errors import explained
from cluster.clients import Clients

NODES_END_WITHIN_S = 600.0
FREE_WITHIN_S = 180.0
"""How long addresses and interfaces of ended nodes may hang on the network."""
_AT_ONCE = 1000
"""Objects that one call deletes at most."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Something that could not be removed.

    Attributes:
        thing: What.
        reason: Why, in one line.
    """

    thing: Thing
    reason: str


@dataclass(frozen=True, slots=True)
class Remover:
    """Removes things; what is gone already counts as removed.

    Attributes:
        clients: Of the account and region.
        patience: How to wait.
        account_id: Whose buckets may be touched.
        intend: Told in words of each thing before it is removed.
    """

    clients: Clients
    patience: Patience
    account_id: str
    intend: Callable[[str], None] = lambda _: None

    def remove(self, found: Sequence[Thing]) -> tuple[Failure, ...]:
        """Remove things but nodes, in the order of `Kind`; one that fails stops no other."""
        failures: list[Failure] = []
        for each in found:
            self.intend(f"no {each}")
            try:
                self._remove(each)
            except ClientError as error:
                reason = str(explained(error, doing=f"removing {each}"))
                failures.append(Failure(each, reason))
        return tuple(failures)

    def end_nodes(self, cluster_id: str) -> tuple[Thing, ...]:
        """End all instances of a cluster and wait until they have ended.

        Those that the head starts while it is ending are found and ended as well.

        Returns:
            Those that have not ended in time: none, as a rule.

        Raises:
            ClientError: They may not be ended.
        """
        ec2, told = self.clients.ec2, set[str]()

        def ended() -> bool:
            left = {each.thing_id for each in nodes(self.clients, cluster_id=cluster_id)}
            if fresh := sorted(left - told):
                self.intend(f"no instances {', '.join(fresh)}")
                ec2.terminate_instances(InstanceIds=fresh)
                told.update(fresh)
                return not nodes(self.clients, cluster_id=cluster_id)
            return not left

        if self.patience.until(ended, timeout_s=NODES_END_WITHIN_S, every_s=5.0):
            return ()
        return nodes(self.clients, cluster_id=cluster_id)

    def _remove(self, thing: Thing) -> None:
        call = self._calls()[thing.kind]
        try:
            self.patience.through(lambda: call(thing.thing_id), is_in_use, timeout_s=FREE_WITHIN_S)
        except ClientError as error:
            if not is_missing(error):
                raise

    def _calls(self) -> Mapping[Kind, Callable[[str], object]]:
        ec2 = self.clients.ec2
        return {
            Kind.SPOT_REQUEST: lambda each: ec2.cancel_spot_instance_requests(
                SpotInstanceRequestIds=[each]
            ),
            Kind.VOLUME: lambda each: ec2.delete_volume(VolumeId=each),
            Kind.INTERFACE: lambda each: ec2.delete_network_interface(NetworkInterfaceId=each),
            Kind.KEY_PAIR: lambda each: ec2.delete_key_pair(KeyName=each),
            Kind.PROFILE: self._profile,
            Kind.ROLE: self._role,
            Kind.BUCKET: self._bucket,
            Kind.GROUP: lambda each: ec2.delete_security_group(GroupId=each),
            Kind.SUBNET: lambda each: ec2.delete_subnet(SubnetId=each),
            Kind.ROUTE_TABLE: self._route_table,
            Kind.GATEWAY: self._gateway,
            Kind.VPC: lambda each: ec2.delete_vpc(VpcId=each),
        }

    def _profile(self, name: str) -> None:
        iam = self.clients.iam
        profile = iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
        for role in profile["Roles"]:
            _undo(
                iam.remove_role_from_instance_profile,
                InstanceProfileName=name,
                RoleName=role["RoleName"],
            )
        iam.delete_instance_profile(InstanceProfileName=name)

    def _role(self, name: str) -> None:
        iam = self.clients.iam
        for page in iam.get_paginator("list_attached_role_policies").paginate(RoleName=name):
            for each in page["AttachedPolicies"]:
                _undo(iam.detach_role_policy, RoleName=name, PolicyArn=each["PolicyArn"])
        for page in iam.get_paginator("list_role_policies").paginate(RoleName=name):
            for each in page["PolicyNames"]:
                _undo(iam.delete_role_policy, RoleName=name, PolicyName=each)
        iam.delete_role(RoleName=name)

    def _route_table(self, table_id: str) -> None:
        ec2 = self.clients.ec2
        (table,) = ec2.describe_route_tables(RouteTableIds=[table_id])["RouteTables"]
        for each in table["Associations"]:
            _undo(ec2.disassociate_route_table, AssociationId=each["RouteTableAssociationId"])
        ec2.delete_route_table(RouteTableId=table_id)

    def _gateway(self, gateway_id: str) -> None:
        ec2 = self.clients.ec2
        answer = ec2.describe_internet_gateways(InternetGatewayIds=[gateway_id])
        for each in answer["InternetGateways"][0]["Attachments"]:
            _undo(ec2.detach_internet_gateway, InternetGatewayId=gateway_id, VpcId=each["VpcId"])
        ec2.delete_internet_gateway(InternetGatewayId=gateway_id)

    def _bucket(self, bucket: str) -> None:
        s3 = self.clients.s3
        ours = {"Bucket": bucket, "ExpectedBucketOwner": self.account_id}
        for page in s3.get_paginator("list_multipart_uploads").paginate(**ours):
            for each in page.get("Uploads", []):
                s3.abort_multipart_upload(**ours, Key=each["Key"], UploadId=each["UploadId"])
        # Versions as well: somebody may have turned on that they are kept.
        for page in s3.get_paginator("list_object_versions").paginate(
            **ours, PaginationConfig={"PageSize": _AT_ONCE}
        ):
            found: list[Any] = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            if found:
                objects = [{"Key": e["Key"], "VersionId": e["VersionId"]} for e in found]
                _check(s3.delete_objects(**ours, Delete={"Objects": objects, "Quiet": True}))
        s3.delete_bucket(**ours)


def _undo(call: Callable[..., object], **arguments: str) -> None:
    """Take away what hangs on a thing; it may be gone, and only still be shown."""
    try:
        call(**arguments)
    except ClientError as error:
        if not is_missing(error):
            raise


def _check(answer: Mapping[str, Any]) -> None:
    """S3 says by its answer, not by an error, that some objects were not deleted."""
    if errors := answer.get("Errors"):
        raise ClientError({"Error": dict(errors[0])}, "DeleteObjects")
