from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
from botocore.exceptions import ClientError

from cluster.clients import Clients
from cluster.images import machine_image
from cluster.planned import MachineImage
from cluster.spec_file import DEFAULT_AMI_PARAMETER, DEFAULT_FILE, read
from falcon_ray.errors import ClusterError, InputError
from falcon_ray.space.catalogue import Catalogue
from tests.unit.cluster.plan_fakes import PagesOf, denied

SPEC = read(DEFAULT_FILE, Catalogue.packaged())
NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) 2026"


def image(ami_id: str, created: str = "2026-11-01T00:00:00.000Z", **facts: Any) -> dict[str, Any]:  # noqa: ANN401 - as EC2's
    return {
        "ImageId": ami_id,
        "Name": NAME,
        "CreationDate": created,
        "State": "available",
        "Architecture": "x86_64",
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/sda1",
        "BlockDeviceMappings": [
            {"DeviceName": "/dev/sdb", "VirtualName": "ephemeral0"},
            {"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 65}},
        ],
        **facts,
    }


@dataclass
class Images:
    """EC2, as far as it knows images."""

    images: Sequence[Mapping[str, Any]]

    def describe_images(self, *, ImageIds: Sequence[str]) -> dict[str, Any]:  # noqa: N803
        return {"Images": [each for each in self.images if each["ImageId"] in ImageIds]}

    def get_paginator(self, call: str) -> PagesOf:
        assert call == "describe_images"

        def pages(*, Owners: Sequence[str], Filters: Sequence[Mapping[str, Any]]) -> Any:  # noqa: ANN401, N803
            assert Owners == ["amazon"]
            (pattern,) = next(each["Values"] for each in Filters if each["Name"] == "name")
            for each in self.images:
                if each["Name"].startswith(pattern.removesuffix("*")):
                    yield {"Images": [each]}

        return PagesOf(pages)


@dataclass
class Parameters:
    """SSM with some parameters."""

    values: Mapping[str, str]
    error: Exception | None = None

    def get_parameter(self, *, Name: str) -> dict[str, Any]:  # noqa: N803
        if self.error:
            raise self.error
        if Name not in self.values:
            raise ClientError({"Error": {"Code": "ParameterNotFound"}}, "GetParameter")
        return {"Parameter": {"Value": self.values[Name]}}


def clients_with(
    images: Sequence[Mapping[str, Any]], parameters: Parameters | None = None
) -> Clients:
    ssm = parameters or Parameters({})
    return Clients("us-east-1", Images(images), None, None, ssm, None, None, None)


def test_parameter_names_the_image() -> None:
    parameters = Parameters({DEFAULT_AMI_PARAMETER: "ami-b"})
    found = machine_image(SPEC, clients_with([image("ami-a"), image("ami-b")], parameters))
    expected = MachineImage(
        ami_id="ami-b", root_device="/dev/sda1", ssh_user="ubuntu", min_disk_gib=65
    )
    assert found == (expected, ())


@pytest.mark.parametrize(
    "parameters",
    [
        Parameters({}),
        Parameters({}, denied("GetParameter", "ssm:GetParameter")),
        Parameters({DEFAULT_AMI_PARAMETER: "ami-gone"}),
    ],
)
def test_without_the_parameter_the_newest_image_by_name_is_taken(parameters: Parameters) -> None:
    images = [
        image("ami-old", "2026-10-01T00:00:00.000Z"),
        image("ami-new", "2026-11-02T00:00:00.000Z"),
        image("ami-other", "2026-11-03T00:00:00.000Z", Name="Deep Learning Base of another kind"),
        image("ami-mid", "2026-11-01T00:00:00.000Z"),
    ]
    found, remarks = machine_image(SPEC, clients_with(images, parameters))
    assert found.ami_id == "ami-new"
    assert remarks[0].endswith("took the newest image by name, ami-new")


def test_own_parameter_is_never_replaced_by_another_image() -> None:
    spec = replace(SPEC, ami_parameter="/mine")
    with pytest.raises(ClusterError, match="looking up the SSM parameter /mine: AWS answered Par"):
        machine_image(spec, clients_with([image("ami-a")]))


def test_own_image_goes_before_any_parameter() -> None:
    parameters = Parameters({DEFAULT_AMI_PARAMETER: "ami-b"})
    clients = clients_with([image("ami-a"), image("ami-b")], parameters)
    assert machine_image(replace(SPEC, ami_id="ami-a"), clients)[0].ami_id == "ami-a"


def test_own_image_that_is_not_there_is_refused() -> None:
    with pytest.raises(ClusterError, match="there is no machine image ami-x in us-east-1"):
        machine_image(replace(SPEC, ami_id="ami-x"), clients_with([image("ami-a")]))


def test_nothing_found_says_both_ways_that_were_tried() -> None:
    with pytest.raises(ClusterError, match=r"ParameterNotFound.*nor is there one named.*ami_id"):
        machine_image(SPEC, clients_with([]))


@pytest.mark.parametrize(
    ("facts", "disk_gib", "kind", "part"),
    [
        ({"Architecture": "arm64"}, 65, InputError, "is arm64 on ebs"),
        ({"RootDeviceType": "instance-store"}, 65, InputError, "on instance-store"),
        ({"State": "pending"}, 65, ClusterError, "is pending"),
        ({}, 64, InputError, "disk_gib is 64, but the machine image ami-a needs 65"),
    ],
)
def test_image_that_does_not_fit_is_refused(
    facts: dict[str, str], disk_gib: int, kind: type[Exception], part: str
) -> None:
    spec = replace(SPEC, ami_id="ami-a", disk_gib=disk_gib)
    with pytest.raises(kind, match=part):
        machine_image(spec, clients_with([image("ami-a", **facts)]))


@pytest.mark.parametrize(
    ("name", "user", "n_remarks"),
    [
        (NAME, "ubuntu", 0),
        ("Deep Learning Base AMI (Amazon Linux 2023)", "ec2-user", 0),
        ("al2023-ami-2023.6", "ec2-user", 0),
        ("mine", "ubuntu", 1),
    ],
)
def test_user_follows_from_the_images_name(name: str, user: str, n_remarks: int) -> None:
    clients = clients_with([image("ami-a", Name=name)])
    found, remarks = machine_image(replace(SPEC, ami_id="ami-a"), clients)
    assert (found.ssh_user, len(remarks)) == (user, n_remarks)
