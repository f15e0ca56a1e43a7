"""What a head that runs already decides for an `up` that comes after it.

Ray ends a head that was launched from another machine image than its file names, and the searches
on it with it; so the file goes on naming the image of the head. The module asks EC2 and changes
nothing.
"""

from dataclasses import replace

from cluster.aws_errors import calling
from cluster.clients import Clients
from cluster.images import machine_image
from cluster.planned import ClusterPlan
from cluster.tags import CLUSTER, MANAGED


def with_image_of_head(plan: ClusterPlan, clients: Clients) -> ClusterPlan:
    """The plan with the machine image of the head that runs; as it is where none does.

    Raises:
        ClusterError: The head's image is no more.
    """
    image_id = _image_of_head(plan.spec.name, clients)
    if image_id is None or image_id == plan.image.ami_id:
        return plan
    image, _ = machine_image(replace(plan.spec, ami_id=image_id), clients)
    return replace(plan, image=image)


def _image_of_head(name: str, clients: Clients) -> str | None:
    wanted = {
        f"tag:{MANAGED}": ["true"],
        f"tag:{CLUSTER}": [name],
        "tag:ray-node-type": ["head"],
        "instance-state-name": ["pending", "running"],
    }
    with calling(f"looking for the head of cluster {name!r}"):
        pages = clients.ec2.get_paginator("describe_instances").paginate(
            Filters=[{"Name": key, "Values": values} for key, values in wanted.items()]
        )
        heads = [e for page in pages for each in page["Reservations"] for e in each["Instances"]]
    return min((each["ImageId"] for each in heads), default=None)
