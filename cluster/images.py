"""Which machine image nodes boot from: the user's own, the one SSM names, or the newest by name.

The module does not know what is installed on an image beyond what its name promises.
"""

from typing import Any

from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.planned import MachineImage
from cluster.spec import ClusterSpec
from cluster.spec_file import DEFAULT_AMI_PARAMETER
from falcon_ray.errors import ClusterError, InputError

_DEFAULT_NAME = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04) *"
_USERS = (
    ("ubuntu", "ubuntu"),
    ("amazon linux", "ec2-user"),
    ("amzn", "ec2-user"),
    ("al20", "ec2-user"),
)


def machine_image(spec: ClusterSpec, clients: Clients) -> tuple[MachineImage, tuple[str, ...]]:
    """The image, pinned by its id, and remarks on how it was found.

    Raises:
        ClusterError: None is found, or it may not be looked up.
        InputError: It does not fit what the spec says.
    """
    remarks: list[str] = []
    if spec.ami_id is not None:
        image = _described(spec.ami_id, clients)
    else:
        try:
            image = _described(_named_by_parameter(spec.ami_parameter, clients), clients)
        except ClusterError as error:
            if spec.ami_parameter != DEFAULT_AMI_PARAMETER:
                raise
            image = _newest_by_name(clients, reason=str(error))
            remarks.append(f"{error}; took the newest image by name, {image['ImageId']}")
    _check(image, spec)
    name = str(image.get("Name", ""))
    user = next((user for part, user in _USERS if part in name.lower()), None)
    if user is None:
        remarks.append(f"the image's name {name!r} does not say its user; ubuntu is assumed")
    return (
        MachineImage(
            ami_id=image["ImageId"],
            root_device=image["RootDeviceName"],
            ssh_user=user or "ubuntu",
            min_disk_gib=_snapshot_gib(image),
        ),
        tuple(remarks),
    )


def _named_by_parameter(parameter: str, clients: Clients) -> str:
    with calling(f"looking up the SSM parameter {parameter}"):
        return str(clients.ssm.get_parameter(Name=parameter)["Parameter"]["Value"])


def _described(ami_id: str, clients: Clients) -> dict[str, Any]:
    with calling(f"looking up the machine image {ami_id} in {clients.region}"):
        images = clients.ec2.describe_images(ImageIds=[ami_id])["Images"]
    if not images:
        raise ClusterError(
            f"there is no machine image {ami_id} in {clients.region}; images belong to one "
            "region: choose one there"
        )
    return images[0]


def _newest_by_name(clients: Clients, *, reason: str) -> dict[str, Any]:
    with calling(f"looking up machine images by name in {clients.region}"):
        pages = clients.ec2.get_paginator("describe_images").paginate(
            Owners=["amazon"],
            Filters=[
                {"Name": "name", "Values": [_DEFAULT_NAME]},
                {"Name": "architecture", "Values": ["x86_64"]},
                {"Name": "state", "Values": ["available"]},
            ],
        )
        images = [each for page in pages for each in page["Images"]]
    if not images:
        raise ClusterError(
            f"no machine image found: {reason}; nor is there one named {_DEFAULT_NAME!r}; name "
            "one by ami_id in the cluster's file"
        )
    return max(images, key=lambda each: each["CreationDate"])


def _check(image: dict[str, Any], spec: ClusterSpec) -> None:
    name = image["ImageId"]
    if image.get("State") != "available":
        raise ClusterError(f"the machine image {name} is {image.get('State')}; choose another one")
    if image.get("Architecture") != "x86_64" or image.get("RootDeviceType") != "ebs":
        raise InputError(
            f"the machine image {name} is {image.get('Architecture')} on "
            f"{image.get('RootDeviceType')}, but nodes need x86_64 on ebs; name another by ami_id "
            "or ami_parameter"
        )
    if spec.disk_gib < (least := _snapshot_gib(image)):
        raise InputError(
            f"disk_gib is {spec.disk_gib}, but the machine image {name} needs {least}; raise it"
        )


def _snapshot_gib(image: dict[str, Any]) -> int:
    for each in image.get("BlockDeviceMappings", []):
        if each.get("DeviceName") == image.get("RootDeviceName"):
            return int(each.get("Ebs", {}).get("VolumeSize", 1))
    return 1
