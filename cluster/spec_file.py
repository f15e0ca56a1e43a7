"""The user's short file, read strictly: every key known, every value of its kind and in range.

The module knows the file's form, and from the catalogue which instance type has which GPU. It
does not know what the account may use, what a region offers, or today's prices.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from cluster.spec import ClusterSpec, Market, WorkerSpec
from cluster.ssh_from import MY_ADDRESS, checked_network
from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue, Instance, InstanceStatus, did_you_mean

DEFAULT_FILE = Path(__file__).with_name("cluster.yaml")
DEFAULT_AMI_PARAMETER = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
)
# An xlarge has two physical cores, too few for a server and the load that is put on it.
_LEAST_VCPUS = 8
_REQUIRED = ("name", "region", "workers")
_DEFAULTS: Mapping[str, Any] = {
    "head": "m6i.xlarge",
    "max_workers": None,
    "max_usd_per_hour": None,
    "max_cost_usd": None,
    "ttl_hours": 8,
    "idle_timeout_minutes": 5,
    "ssh_from": MY_ADDRESS,
    "disk_gib": 150,
    "ami_parameter": DEFAULT_AMI_PARAMETER,
    "ami_id": None,
    "availability_zones": [],
}
_T = TypeVar("_T")
_WORKER_KEYS = ("gpu", "instance_type", "market", "max_workers")


def read(path: Path, catalogue: Catalogue) -> ClusterSpec:
    """What the file at `path` asks for.

    Raises:
        InputError: It cannot be read, or something in it does not fit; the message says where.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or error}; give the "
            f"cluster's file by --config, such as {DEFAULT_FILE}"
        ) from None
    try:
        return parse(text, catalogue)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse(text: str, catalogue: Catalogue) -> ClusterSpec:
    """What a YAML text asks for.

    Raises:
        InputError: Something in it does not fit.
    """
    content = _content(text)
    _check_keys(content, (*_REQUIRED, *_DEFAULTS), where="")
    for key in _REQUIRED:
        if content.get(key) is None:
            raise InputError(f"{key} is missing; see {DEFAULT_FILE} for an example")
    values = {**_DEFAULTS, **{key: each for key, each in content.items() if each is not None}}
    region = _matching("region", values["region"], r"[a-z]{2}(-[a-z]+)+-\d", "us-east-1")
    workers = _workers(values["workers"], catalogue)
    total = values["max_workers"]
    return ClusterSpec(
        name=_matching("name", values["name"], r"[a-z][a-z0-9-]{0,22}[a-z0-9]|[a-z]", "falcon-1"),
        region=region,
        head_instance_type=_instance_type("head", values["head"], catalogue).instance_type,
        workers=workers,
        max_workers=(
            sum(each.max_workers for each in workers)
            if total is None
            else _whole("max_workers", total)
        ),
        max_usd_per_hour=_optional("max_usd_per_hour", values, _number),
        max_cost_usd=_optional("max_cost_usd", values, _number),
        ttl_hours=_number("ttl_hours", values["ttl_hours"]),
        idle_timeout_minutes=_number("idle_timeout_minutes", values["idle_timeout_minutes"]),
        ssh_from=_network("ssh_from", values["ssh_from"]),
        disk_gib=_whole("disk_gib", values["disk_gib"]),
        ami_parameter=_matching(
            "ami_parameter", values["ami_parameter"], r"[\w./-]+", DEFAULT_AMI_PARAMETER
        ),
        ami_id=_optional("ami_id", values, _ami_id),
        availability_zones=_zones(values["availability_zones"], region),
    )


def smallest_instance_with(gpu: str, catalogue: Catalogue) -> Instance:
    """The cheapest type that can be rented with this GPU and at least eight vCPUs, one GPU first.

    Raises:
        InputError: The GPU is unknown, or can no longer be rented.
    """
    found = catalogue.instances_with(gpu)
    offered = [
        each
        for each in found
        if each.status is InstanceStatus.ACTIVE and each.vcpus >= _LEAST_VCPUS
    ]
    if not offered:
        known = ", ".join(f"{each.instance_type} ({each.status.value})" for each in found)
        raise InputError(
            f"no instance type with {gpu} can be rented (known: {known or 'none'}); choose "
            "another GPU"
        )
    return min(offered, key=lambda each: (each.n_gpus, each.usd_per_hour))


def _content(text: str) -> Mapping[str, Any]:
    try:
        _check_unique_keys(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"no valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(
            f"a mapping is expected, such as in {DEFAULT_FILE}, got {type(content).__name__}"
        )
    return content


def _check_unique_keys(node: yaml.Node | None) -> None:
    """YAML takes the last of two equal keys in silence; nothing of that kind is meant."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                line = key.start_mark.line + 1
                raise InputError(f"line {line}: {key.value} stands twice; remove one of them")
            seen.add(key.value)
            _check_unique_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for each in node.value:
            _check_unique_keys(each)


def _check_keys(content: Mapping[str, Any], known: tuple[str, ...], *, where: str) -> None:
    for key in content:
        if key not in known:
            raise InputError(
                f"{where}unknown key {key!r}{did_you_mean(str(key), known)}; known are "
                f"{', '.join(known)}"
            )


def _workers(value: object, catalogue: Catalogue) -> tuple[WorkerSpec, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(
            "workers must be a list with at least one entry, such as "
            f"'- {{gpu: T4, market: spot, max_workers: 2}}', got {value!r}"
        )
    workers = tuple(_worker(i, each, catalogue) for i, each in enumerate(value, start=1))
    kinds = [(each.instance_type, each.market) for each in workers]
    for i, kind in enumerate(kinds):
        if kind in kinds[:i]:
            raise InputError(
                f"workers, entry {i + 1}: {kind[0]} {kind[1].value} stands there already; raise "
                "its max_workers instead"
            )
    return workers


def _worker(number: int, value: object, catalogue: Catalogue) -> WorkerSpec:
    where = f"workers, entry {number}: "
    if not isinstance(value, dict):
        raise InputError(f"{where}a mapping with {', '.join(_WORKER_KEYS)} is expected")
    _check_keys(value, _WORKER_KEYS, where=where)
    given = [key for key in ("gpu", "instance_type") if value.get(key) is not None]
    if len(given) != 1:
        raise InputError(
            f"{where}say either gpu or instance_type, got {' and '.join(given) or 'none'}"
        )
    try:
        (key,) = given
        instance = (
            smallest_instance_with(_text(key, value[key]), catalogue)
            if key == "gpu"
            else _instance_type(key, value[key], catalogue)
        )
        return WorkerSpec(
            instance_type=instance.instance_type,
            market=_market(value.get("market", Market.ON_DEMAND.value)),
            max_workers=_whole("max_workers", value.get("max_workers", 1)),
        )
    except InputError as error:
        raise InputError(f"{where}{error}") from None


def _market(value: object) -> Market:
    try:
        return Market(value)
    except ValueError:
        known = [each.value for each in Market]
        raise InputError(
            f"market must be {' or '.join(known)}, got {value!r}{did_you_mean(str(value), known)}"
        ) from None


def _instance_type(key: str, value: object, catalogue: Catalogue) -> Instance:
    return catalogue.instance(_text(key, value))


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise InputError(f"{key} must be a text, got {value!r}")
    return value


def _matching(key: str, value: object, pattern: str, example: str) -> str:
    text = _text(key, value)
    if not re.fullmatch(pattern, text):
        raise InputError(f"{key} must look like {example}, got {text!r}")
    return text


def _ami_id(key: str, value: object) -> str:
    return _matching(key, value, r"ami-[0-9a-f]{8,17}", "ami-0123456789abcdef0")


def _whole(key: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"{key} must be a whole number of at least 1, got {value!r}")
    return value


def _number(key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise InputError(f"{key} must be a positive number below a million, got {value!r}")
    return float(value)


def _optional(key: str, values: Mapping[str, Any], kind: Callable[[str, object], _T]) -> _T | None:
    return None if values[key] is None else kind(key, values[key])


def _network(key: str, value: object) -> str | None:
    text = _text(key, value)
    return None if text == MY_ADDRESS else checked_network(text)


def _zones(value: object, region: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InputError(f"availability_zones must be a list such as [{region}a], got {value!r}")
    for each in value:
        if not isinstance(each, str) or not re.fullmatch(f"{region}[a-z]", each):
            raise InputError(f"availability_zones must be such as {region}a, got {each!r}")
    if len(set(value)) < len(value):
        raise InputError(f"availability_zones names a zone twice: {', '.join(value)}")
    return tuple(value)
