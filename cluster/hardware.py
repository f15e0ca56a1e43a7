"""What EC2 says that its instance types are made of, looked up or from the last time.

The module corrects rows of the catalogue. It does not know prices, zones or quotas.
"""

import contextlib
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from cluster import cache_file
from cluster.aws_errors import calling
from cluster.clients import Clients
from falcon_ray.errors import ClusterError, InputError
from falcon_ray.space.catalogue import Instance

FILE_NAME = "hardware.json"
# Sizes are rounded when they are written down.
_RAM_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One instance type, as EC2 described it.

    Attributes:
        instance_type: Unique name.
        vcpus: Logical CPUs.
        ram_gib: Main memory.
        n_gpus: How many GPUs.
        gpu_memory_mib: Built-in memory of each.
        date: When it was described so.
    """

    instance_type: str
    vcpus: int
    ram_gib: float
    n_gpus: int
    gpu_memory_mib: int
    date: dt.date


@dataclass(frozen=True, slots=True)
class HardwareCache:
    """What EC2 described before, in one file.

    Attributes:
        path: Of the file; neither it nor its directory need exist.
    """

    path: Path

    def read(self) -> Mapping[str, Hardware]:
        """All there is, by instance type.

        Raises:
            InputError: The file is damaged.
        """
        return {each.instance_type: each for each in cache_file.read(self.path, _from_json)}

    def add(self, found: Mapping[str, Hardware]) -> None:
        """Keep this, and all else that is there; a damaged file is replaced.

        Raises:
            InputError: The file cannot be written.
        """
        kept: dict[str, Hardware] = {}
        with contextlib.suppress(InputError):
            kept.update(self.read())
        kept.update(found)
        records = [
            {**asdict(each), "date": each.date.isoformat()} for _, each in sorted(kept.items())
        ]
        cache_file.write(self.path, records)


def known_rows(rows: Sequence[Instance], cache: HardwareCache) -> tuple[list[Instance], list[str]]:
    """The rows as EC2 described them the last time, and a remark on each that was wrong."""
    try:
        return _corrected_rows(rows, cache.read())
    except InputError as error:
        return list(rows), [str(error)]


def checked_rows(
    rows: Sequence[Instance], clients: Clients, *, cache: HardwareCache, now: dt.datetime
) -> tuple[list[Instance], list[str]]:
    """The rows as EC2 describes them now; where it does not, as it did the last time."""
    today = now.astimezone(dt.UTC).date()
    try:
        found = _described([each.instance_type for each in rows], clients, today)
    except ClusterError as error:
        kept, remarks = known_rows(rows, cache)
        return kept, [f"{error}; what is known of the hardware holds", *remarks]
    kept, remarks = _corrected_rows(rows, found)
    try:
        cache.add(found)
    except InputError as error:
        remarks.append(str(error))
    return kept, remarks


def _described(
    instance_types: Sequence[str], clients: Clients, today: dt.date
) -> Mapping[str, Hardware]:
    found: dict[str, Hardware] = {}
    with calling("looking up the hardware of instance types"):
        pages = clients.ec2.get_paginator("describe_instance_types").paginate(
            Filters=[{"Name": "instance-type", "Values": sorted(set(instance_types))}]
        )
        for page in pages:
            for each in page["InstanceTypes"]:
                gpus = each.get("GpuInfo", {}).get("Gpus", [])
                found[each["InstanceType"]] = Hardware(
                    instance_type=each["InstanceType"],
                    vcpus=each["VCpuInfo"]["DefaultVCpus"],
                    ram_gib=each["MemoryInfo"]["SizeInMiB"] / 1024,
                    n_gpus=sum(gpu["Count"] for gpu in gpus),
                    gpu_memory_mib=gpus[0]["MemoryInfo"]["SizeInMiB"] if gpus else 0,
                    date=today,
                )
    return found


def _corrected_rows(
    rows: Sequence[Instance], found: Mapping[str, Hardware]
) -> tuple[list[Instance], list[str]]:
    both = [_corrected(each, found.get(each.instance_type)) for each in rows]
    return [row for row, _ in both], [remark for _, remark in both if remark]


def _corrected(row: Instance, found: Hardware | None) -> tuple[Instance, str | None]:
    if found is None:
        return row, None
    near = abs(found.ram_gib / row.ram_gib - 1) < _RAM_TOLERANCE
    facts = {
        "vcpus": found.vcpus,
        "ram_gib": row.ram_gib if near else found.ram_gib,
        "n_gpus": found.n_gpus,
        "gpu_memory_mib": found.gpu_memory_mib,
    }
    wrong = [
        f"{name} {getattr(row, name):g} -> {value:g}"
        for name, value in facts.items()
        if value != getattr(row, name)
    ]
    if not wrong:
        return row, None
    said = f"{row.instance_type}: by EC2 on {found.date}, {', '.join(wrong)}"
    try:
        return replace(row, **facts), said
    except InputError as error:
        return row, f"{said}, which is not taken: {error}"


def _from_json(record: Mapping[str, Any]) -> Hardware:
    numbers = {name: record[name] for name in ("vcpus", "ram_gib", "n_gpus", "gpu_memory_mib")}
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise ValueError(f"{name} {value!r}")
    date = dt.date.fromisoformat(record["date"])
    return Hardware(instance_type=str(record["instance_type"]), **numbers, date=date)
