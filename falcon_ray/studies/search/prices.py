"""The same tasks under other prices: trials end as they did, but another candidate may be best.

Prices are assumptions, and results must hold under others. It knows which dimension of a space
names devices. It does not know what a device really costs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from falcon_ray.errors import InputError
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import FloatArray
from falcon_ray.space.dimension import Value

DEVICE_DIMENSIONS = ("gpu_type", "device")
"""Dimensions whose values have a price, the first that a space has."""
RECORDED, EQUAL, SHUFFLED = "recorded", "equal", "shuffled-"


def repriced(tasks: Sequence[ReplayTask], prices: str) -> list[ReplayTask]:
    """The tasks under other prices.

    Args:
        tasks: As recorded.
        prices: See `SearchStudyOptions.prices`.

    Raises:
        InputError: The file is none of factors, or no space has the dimension.
    """
    if prices == RECORDED:
        return list(tasks)
    if prices == EQUAL or prices.startswith(SHUFFLED):
        name, logs = device_log_prices(tasks)
        order = np.argsort(list(logs))
        new = {device: float(np.mean(list(logs.values()))) for device in logs}
        if prices != EQUAL:
            rng = np.random.default_rng(int(prices.removeprefix(SHUFFLED)))
            devices = [list(logs)[i] for i in order]
            new = dict(zip(devices, rng.permutation([logs[d] for d in devices]), strict=True))
        factors = {name: {device: np.exp(new[device] - logs[device]) for device in logs}}
    else:
        factors = _read_factors(Path(prices))
    if not any(name == each.name for t in tasks for each in t.space.dimensions for name in factors):
        raise InputError(f"no task has the dimension {' or '.join(factors)}, which has prices")
    return [
        replace(task, usd_per_hour=task.usd_per_hour * _factors_of(task, factors)) for task in tasks
    ]


def device_log_prices(tasks: Sequence[ReplayTask]) -> tuple[str, dict[Value, float]]:
    """The dimension with devices, and how their prices compare, as logs up to a constant.

    Least squares over candidates of a task that differ in the device alone: what else a price
    depends on, such as a number of devices, cancels there.

    Raises:
        InputError: No space has devices.
    """
    names = [
        name
        for name in DEVICE_DIMENSIONS
        if any(each.name == name for task in tasks for each in task.space.dimensions)
    ]
    if not names:
        raise InputError(
            f"no task has a dimension {' or '.join(DEVICE_DIMENSIONS)}; give a file of factors"
        )
    name = names[0]
    devices: dict[Value, int] = {}
    groups: dict[tuple[int, frozenset[tuple[str, Value]]], list[tuple[Value, float]]] = {}
    for number, task in enumerate(tasks):
        for candidate, price in zip(task.space.candidates, task.usd_per_hour, strict=True):
            if name not in candidate:
                continue
            devices.setdefault(candidate[name], len(devices))
            rest = frozenset((key, value) for key, value in candidate.items() if key != name)
            groups.setdefault((number, rest), []).append((candidate[name], float(np.log(price))))
    rows: list[FloatArray] = []
    logs: list[FloatArray] = []
    for group in groups.values():
        design = np.zeros((len(group), len(devices)))
        design[np.arange(len(group)), [devices[device] for device, _ in group]] = 1
        values = np.array([log for _, log in group])
        rows.append(design - design.mean(axis=0))
        logs.append(values - values.mean())
    found = np.linalg.lstsq(np.concatenate(rows), np.concatenate(logs), rcond=None)[0]
    return name, {device: float(found[i]) for device, i in devices.items()}


def _factors_of(task: ReplayTask, factors: Mapping[str, Mapping[Value, float]]) -> FloatArray:
    found = np.ones(len(task.space))
    for name, by_value in factors.items():
        if all(name != each.name for each in task.space.dimensions):
            continue
        found *= [by_value.get(candidate[name], 1.0) for candidate in task.space.candidates]
    return found


def _read_factors(path: Path) -> dict[str, dict[Value, float]]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict) or not all(isinstance(v, dict) for v in content.values()):
        raise InputError(f"{path} must map dimensions to values to factors: gpu_type: {{L4: 0.5}}")
    for by_value in content.values():
        for value, factor in by_value.items():
            if not isinstance(factor, int | float) or not 0 < factor < np.inf:
                raise InputError(f"{path}: the factor of {value} must be positive, got {factor!r}")
    return content
