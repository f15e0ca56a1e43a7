"""An account of AWS in this process, plans for it, and clients that fail where a test wants it."""

import datetime as dt
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from botocore.exceptions import ClientError
from moto import mock_aws

from cluster.account.patience import Patience
from cluster.clients import Clients
from cluster.planned import ClusterPlan, MachineImage, PlannedNode, Price
from cluster.provision import provision
from cluster.provisioned import Provisioned
from cluster.spec import ClusterSpec, Market, WorkerSpec
from cluster.state.directory import StateDirectory
from falcon_ray.space.catalogue import Catalogue

ACCOUNT = "123456789012"
"""The one that moto emulates."""
REGION = "us-east-1"
NAME = "lab"
CLUSTER_ID = "0123abcd"
NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
TTL_HOURS = 8.0
SSH_FROM = "203.0.113.7/32"
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI" + "A" * 43
IMAGE = "ami-0123456789abcdef0"


def environment() -> Mapping[str, str]:
    """Credentials that nobody accepts, and nothing that is not needed."""
    return {
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_SESSION_TOKEN": "testing",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
    }


def node(
    instance_type: str, *, name: str, market: Market, zones: Sequence[str], max_workers: int = 1
) -> PlannedNode:
    instance = Catalogue.packaged().instance(instance_type)
    price = Price(usd_per_hour=instance.usd_per_hour, date=NOW.date(), origin="a test")
    return PlannedNode(
        name=name,
        instance=instance,
        market=market,
        max_workers=max_workers,
        price=price,
        zones=tuple(zones),
    )


def plan(
    *,
    name: str = NAME,
    region: str = REGION,
    ssh_from: str | None = SSH_FROM,
    market: Market = Market.SPOT,
    head_zones: Sequence[str] = ("us-east-1a",),
    worker_zones: Sequence[str] = ("us-east-1b", "us-east-1a"),
    image_id: str = IMAGE,
) -> ClusterPlan:
    """Two types of workers in two zones."""
    workers = (
        WorkerSpec(instance_type="g6.2xlarge", market=market, max_workers=2),
        WorkerSpec(instance_type="g4dn.2xlarge", market=Market.ON_DEMAND, max_workers=1),
    )
    spec = ClusterSpec(
        name=name,
        region=region,
        head_instance_type="m6i.xlarge",
        workers=workers,
        max_workers=3,
        max_usd_per_hour=None,
        max_cost_usd=None,
        ttl_hours=TTL_HOURS,
        idle_timeout_minutes=5,
        ssh_from=ssh_from,
        disk_gib=100,
        ami_parameter="/aws/some/parameter",
        ami_id=None,
        availability_zones=(),
    )
    return ClusterPlan(
        spec=spec,
        account_id=ACCOUNT,
        caller_arn=f"arn:aws:sts::{ACCOUNT}:assumed-role/testing/me",
        head=node("m6i.xlarge", name="head", market=Market.ON_DEMAND, zones=head_zones),
        workers=tuple(
            node(
                each.instance_type,
                name=f"{each.instance_type.replace('.', '-')}-{each.market.value}",
                market=each.market,
                zones=worker_zones,
                max_workers=each.max_workers,
            )
            for each in workers
        ),
        image=MachineImage(
            ami_id=image_id, root_device="/dev/sda1", ssh_user="ubuntu", min_disk_gib=45
        ),
    )


Boto: TypeAlias = Any
"""A client, an argument or an answer of boto3, which are typed at run time."""
Around: TypeAlias = Callable[[str, Callable[..., Any], dict[str, Any]], Any]
"""Makes a call of this name with these arguments, or does not."""


@dataclass
class FakeTime:
    """A clock that only pauses move on, `speed` times as far as they last."""

    now_s: float = 0.0
    speed: float = 1.0
    pauses: list[float] = field(default_factory=list)

    @property
    def patience(self) -> Patience:
        return Patience(clock=lambda: self.now_s, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now_s += seconds * self.speed


class TaggingS3:
    """Tags a bucket in the call that makes it, as S3 does and moto does not."""

    def __init__(self, inner: Boto) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Boto:
        return getattr(self._inner, name)

    def create_bucket(self, **arguments: Boto) -> Boto:
        made = dict(arguments.pop("CreateBucketConfiguration"))
        tags = made.pop("Tags")
        if made:
            arguments["CreateBucketConfiguration"] = made
        answer = self._inner.create_bucket(**arguments)
        self._inner.put_bucket_tagging(Bucket=arguments["Bucket"], Tagging={"TagSet": tags})
        return answer


class DryRunEc2:
    """Makes nothing where `DryRun` is set; moto makes a VPC all the same."""

    def __init__(self, inner: Boto) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Boto:
        return getattr(self._inner, name)

    def create_vpc(self, **arguments: Boto) -> Boto:
        if arguments.get("DryRun"):
            raise refusal("create_vpc", "DryRunOperation")
        return self._inner.create_vpc(**arguments)


def connect(region: str = REGION) -> Clients:
    """Clients that reach the emulated account inside `account`."""
    clients = Clients.connect(region)
    return replace(clients, ec2=DryRunEc2(clients.ec2), s3=TaggingS3(clients.s3))


@contextmanager
def account() -> Iterator[None]:
    """A fresh account until the context exits."""
    with mock_aws():
        yield


class Wrapped:
    """A client whose every call goes through `around`, which may fail instead of making it."""

    def __init__(self, inner: Boto, around: Around) -> None:
        self._inner = inner
        self._around = around

    def __getattr__(self, name: str) -> Boto:
        attribute = getattr(self._inner, name)
        if name in ("can_paginate", "get_paginator", "meta"):
            return attribute
        return lambda **arguments: self._around(name, attribute, arguments)


def wrapped(clients: Clients, around: Around) -> Clients:
    """Clients all of whose calls but those of paginators go through `around`."""
    return replace(
        clients,
        ec2=Wrapped(clients.ec2, around),
        iam=Wrapped(clients.iam, around),
        s3=Wrapped(clients.s3, around),
    )


def changes_account(name: str, arguments: Mapping[str, Any]) -> bool:
    """Whether a call changes anything."""
    reads = ("describe_", "get_", "list_", "head_")
    return not name.startswith(reads) and not arguments.get("DryRun")


class Crash(BaseException):
    """The process is killed: nothing of ours may catch it."""


def crashing(clients: Clients, *, at: int, when: str) -> Clients:
    """Clients with which the process is killed `before` or `after` the call number `at`."""
    numbers = itertools.count(1)

    def around(name: str, call: Callable[..., Any], arguments: dict[str, Any]) -> Boto:
        if not changes_account(name, arguments):
            return call(**arguments)
        number = next(numbers)
        if number == at and when == "before":
            raise Crash(name)
        answer = call(**arguments)
        if number == at:
            raise Crash(name)
        return answer

    return wrapped(clients, around)


def recording(clients: Clients) -> tuple[Clients, list[tuple[str, dict[str, Any]]]]:
    """Clients, and the calls by which they will have changed the account."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def around(name: str, call: Callable[..., Any], arguments: dict[str, Any]) -> Boto:
        if changes_account(name, arguments):
            calls.append((name, arguments))
        return call(**arguments)

    return wrapped(clients, around), calls


def failing(clients: Clients, errors: Mapping[str, Sequence[str]]) -> Clients:
    """Clients whose first calls of some names fail with these codes; "" lets one through.

    A code may carry a message: "InvalidParameterValue: what is wrong".
    """
    left = {name: list(codes) for name, codes in errors.items()}

    def around(name: str, call: Callable[..., Any], arguments: dict[str, Any]) -> Boto:
        if left.get(name) and (code := left[name].pop(0)):
            raise refusal(name, code)
        return call(**arguments)

    return wrapped(clients, around)


def refusal(name: str, code: str) -> ClientError:
    """The error that a call answers with."""
    code, _, message = code.partition(": ")
    operation = "".join(each.capitalize() for each in name.split("_"))
    return ClientError({"Error": {"Code": code, "Message": message or code}}, operation)


OURS: Mapping[str, str] = {
    "falcon-ray_managed": "true",
    "falcon-ray_cluster": NAME,
    "falcon-ray_id": CLUSTER_ID,
}
"""The tags of what belongs to the cluster that `up` makes, as `launch` takes them."""


def up(
    clients: Clients,
    state: StateDirectory,
    the_plan: ClusterPlan | None = None,
    *,
    now: dt.datetime = NOW,
    time: FakeTime | None = None,
    cluster_id: str = CLUSTER_ID,
) -> Provisioned:
    """Make a cluster, or go on with it, by a clock that waits for nobody."""
    return provision(
        the_plan or plan(),
        clients,
        state,
        now=now,
        patience=(time or FakeTime()).patience,
        new_id=lambda: cluster_id,
    )


def keep(clients: Clients, bucket: str, *keys: str) -> None:
    """Put results into a cluster's bucket.

    Its policy goes first: moto leaves out the condition by which it concerns only calls in the
    clear, and denies every one.
    """
    clients.s3.delete_bucket_policy(Bucket=bucket)
    for key in keys:
        clients.s3.put_object(Bucket=bucket, Key=key, Body=b"ours")


def with_images(clients: Clients) -> Clients:
    """Clients of an account in which every machine image exists that nodes can boot from."""

    def around(name: str, call: Callable[..., Any], arguments: dict[str, Any]) -> Boto:
        if name != "describe_images":
            return call(**arguments)
        disk = {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 45}}
        found = {
            "ImageId": arguments["ImageIds"][0],
            "Name": "an image (Ubuntu 22.04)",
            "State": "available",
            "Architecture": "x86_64",
            "RootDeviceType": "ebs",
            "RootDeviceName": "/dev/sda1",
            "BlockDeviceMappings": [disk],
        }
        return {"Images": [found]}

    return wrapped(clients, around)


def launch(
    clients: Clients, subnet_id: str | None = None, *, image_id: str = IMAGE, **tags: str
) -> str:
    """Start an instance that carries these tags, as Ray would."""
    place = {} if subnet_id is None else {"SubnetId": subnet_id}
    marks = [{"Key": key.replace("_", ":", 1), "Value": value} for key, value in tags.items()]
    answer = clients.ec2.run_instances(
        ImageId=image_id,
        InstanceType="m6i.xlarge",
        MinCount=1,
        MaxCount=1,
        TagSpecifications=[{"ResourceType": "instance", "Tags": marks}] if marks else [],
        **place,
    )
    return answer["Instances"][0]["InstanceId"]
