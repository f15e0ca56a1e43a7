"""Reads anybody's table of measured configurations as tasks of a search.

A Parquet or CSV file has one row per configuration and trial. A YAML file of the same name with
the ending `.yaml` beside it says what the columns are:

    task: workload             # optional: a column; rows of one value are one task
    model: model               # a column; tasks are kept apart by model as well
    family: family             # a column: what is held out together
    dimensions:                # columns of the configuration, and how their values compare:
      gpu_type: categorical    # categorical, linear, log2, or auto
      batch_size: auto
    status:                    # optional; without it every row is ok
      column: status
      ok: [ok]                 # values of rows with metrics
      infeasible: [oom]        # values of rows that cannot run; others are refused
    metrics:                   # one of two kinds
      rate: requests_per_s     # a column
      latency: p99_ms          # optional: a column, and its limit, a number or a column
      latency_limit: 50
    price: usd_per_hour        # a number or a column: the whole deployment, USD per hour

or, for language models in closed loop:

    metrics:
      ttft: ttft_ms            # a column: time to the first token
      tpot: tpot_ms            # a column: time between two tokens
      output_tokens: 500       # a number or a column
      concurrency: users       # a number or a column: requests in flight
      ttft_limit: 5000         # optional: numbers or columns
      tpot_limit: 50

What is a number or a column is a column where it is a text. Limits and output tokens are the same
within a task. A task of one candidate is allowed: it is solved at the first trial.

The module knows this format. It knows no prior, and runs no search.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from falcon_ray.errors import InputError
from falcon_ray.optimizers.replay import ReplayTask
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Dimension, Scale, Value
from falcon_ray.space.listed import ListedSpace
from falcon_ray.space.observation import Observation, TrialStatus
from falcon_ray.studies.search.table_metrics import Metrics, numbers, parse_metrics

_AUTO = "auto"
_KEYS = ("task", "model", "family", "dimensions", "status", "metrics", "price")
_OPTIONAL = {"task", "status"}
_STATUS_KEYS = ("column", "ok", "infeasible")


@dataclass(frozen=True, slots=True, kw_only=True)
class TableFormat:
    """What the columns of a table are; see the module for the fields."""

    task: str | None
    model: str
    family: str
    dimensions: Mapping[str, str]
    status: str | None
    ok: frozenset[object]
    infeasible: frozenset[object]
    metrics: Metrics
    price: str | float

    @property
    def columns(self) -> list[str]:
        """Every column that the table must have."""
        named = [self.task, self.model, self.family, *self.dimensions, self.status, self.price]
        return [each for each in [*named, *self.metrics.columns] if isinstance(each, str)]


def read_tables(paths: Iterable[Path]) -> list[ReplayTask]:
    """The tasks of several tables; see `read_table_file`."""
    return [task for path in paths for task in read_table_file(path)]


def read_table_file(path: Path) -> list[ReplayTask]:
    """The tasks of a table, in the order of their names, without priors.

    Raises:
        InputError: The table or its YAML is missing, or something in them does not fit: one line
            that says what, and where.
    """
    if not path.is_file():
        raise InputError(f"there is no table {path}")
    described = path.with_suffix(".yaml")
    if not described.is_file():
        raise InputError(f"{path.name} needs {described.name} beside it, which names its columns")
    try:
        content = yaml.safe_load(described.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{described.name} is no YAML: {' '.join(str(error).split())}") from None
    try:
        form = parse_format(content)
    except InputError as error:
        raise InputError(f"{described.name}: {error}") from None
    try:
        return tasks_of(_read(path), form)
    except InputError as error:
        raise InputError(f"{path.name}: {error}") from None


def parse_format(content: object) -> TableFormat:
    """What a YAML file says, checked.

    Raises:
        InputError: A key is missing or unknown, or its value does not fit.
    """
    fields = mapping(content, "the file", _KEYS, optional=_OPTIONAL)
    dimensions = fields["dimensions"]
    if not isinstance(dimensions, dict) or not dimensions:
        raise InputError("dimensions must map at least one column to its scale, or to auto")
    scales = {str(name): _AUTO if scale is None else scale for name, scale in dimensions.items()}
    known = [_AUTO, *(each.value for each in Scale)]
    for name, scale in scales.items():
        if scale not in known:
            raise InputError(f"dimensions: {name} is {' or '.join(known)}, not {scale!r}")
    values = _status(fields.get("status"))
    price = fields["price"]
    if isinstance(price, bool) or not isinstance(price, str | int | float):
        raise InputError(f"price must be a number or a column, got {price!r}")
    for key in ("task", "model", "family"):
        if not isinstance(fields.get(key, ""), str):
            raise InputError(f"{key} must be the name of a column, got {fields[key]!r}")
    return TableFormat(
        task=fields.get("task"),
        model=fields["model"],
        family=fields["family"],
        dimensions=scales,
        status=values["column"],
        ok=frozenset(values["ok"]),
        infeasible=frozenset(values["infeasible"]),
        metrics=parse_metrics(fields["metrics"]),
        price=price,
    )


def _status(status: object) -> dict[str, Any]:
    """Column and values of a status, checked."""
    if status is None:
        return {"column": None, "ok": [], "infeasible": []}
    values = mapping(status, "status", _STATUS_KEYS)
    if not isinstance(values["column"], str):
        raise InputError(f"status: column must be its name, got {values['column']!r}")
    for key in ("ok", "infeasible"):
        if not isinstance(values[key], list):
            raise InputError(f"status: {key} must be a list of values, got {values[key]!r}")
        for each in values[key]:
            if not isinstance(each, str | int | float):
                raise InputError(f"status: {key} holds values, not {each!r}")
    if both := set(values["ok"]) & set(values["infeasible"]):
        raise InputError(f"status: {both.pop()!r} is either ok or infeasible, not both")
    return values


def tasks_of(rows: pd.DataFrame, form: TableFormat) -> list[ReplayTask]:
    """The tasks of rows.

    Raises:
        InputError: A column is missing, or a value does not fit.
    """
    missing = [name for name in form.columns if name not in rows.columns]
    if missing:
        raise InputError(f"the columns {', '.join(missing)} are missing; it has {_listed(rows)}")
    if rows.empty:
        raise InputError("it has no rows")
    keys = [name for name in (form.task, form.model, form.family) if name is not None]
    for name in [*keys, *form.dimensions]:
        if rows[name].isna().any():
            raise InputError(f"{name} is empty in {_row(rows, rows[name].isna())}")
    families = rows.groupby(form.model)[form.family].nunique()
    if (families > 1).any():
        raise InputError(f"the model {families.idxmax()} is in more than one family")
    by = list(dict.fromkeys([form.model, *([form.task] if form.task else [])]))
    return [_task(own, " ".join(map(str, key)), form) for key, own in rows.groupby(by, sort=True)]


def mapping(
    content: object, what: str, keys: Sequence[str], *, optional: Iterable[str] = ()
) -> dict[str, Any]:
    """A mapping that has these keys and no others.

    Raises:
        InputError: It has not.
    """
    if not isinstance(content, dict):
        raise InputError(f"{what} must map {', '.join(keys)}, got {content!r}")
    unknown = [each for each in content if each not in keys]
    if unknown:
        raise InputError(f"{what} has the unknown key {unknown[0]!r}; known are {', '.join(keys)}")
    missing = [each for each in keys if each not in content and each not in set(optional)]
    if missing:
        raise InputError(f"{what} lacks the key {missing[0]!r}")
    return {str(key): value for key, value in content.items()}


def _task(rows: pd.DataFrame, name: str, form: TableFormat) -> ReplayTask:
    """One task of rows that belong together."""
    dimensions = list(form.dimensions)
    twice = rows.duplicated(dimensions)
    if twice.any():
        raise InputError(
            f"{name}: {_row(rows, twice)} repeats a configuration; merge the repeats first"
        )
    candidates = [
        {key: _plain(value) for key, value in zip(dimensions, row, strict=True)}
        for row in rows[dimensions].itertuples(index=False, name=None)
    ]
    scales = [
        Dimension(key, tuple(dict.fromkeys(row[key] for row in candidates)), Scale(scale))
        for key, scale in form.dimensions.items()
        if scale != _AUTO
    ]
    space = ListedSpace.of_rows(candidates, scales)
    ok = _ok(rows, form)
    measured = iter(form.metrics.measurements(rows[ok]))
    observations = tuple(
        Observation(
            configuration=candidate, status=TrialStatus.MEASURED, measurement=next(measured)
        )
        if runs
        else _infeasible(candidate)
        for candidate, runs in zip(space.candidates, ok, strict=True)
    )
    prices = numbers(rows, form.price, "price")
    return ReplayTask(
        name=name,
        model=str(rows[form.model].iloc[0]),
        family=str(rows[form.family].iloc[0]),
        space=space,
        objective=form.metrics.objective(rows),
        usd_per_hour=prices / form.metrics.requests_in_flight(rows),
        observations=observations,
    )


def _ok(rows: pd.DataFrame, form: TableFormat) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which rows have metrics, shape (n,)."""
    if form.status is None:
        return np.ones(len(rows), dtype=np.bool_)
    unknown = ~rows[form.status].isin(form.ok | form.infeasible)
    if unknown.any():
        raise InputError(
            f"{_row(rows, unknown)} has the status {rows[form.status][unknown].iloc[0]!r}, which "
            "is listed neither as ok nor as infeasible"
        )
    return rows[form.status].isin(form.ok).to_numpy(dtype=np.bool_)


def _infeasible(candidate: Configuration) -> Observation:
    return Observation(
        configuration=candidate, status=TrialStatus.INFEASIBLE, reason="recorded as infeasible"
    )


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        if path.suffix == ".csv":
            return pd.read_csv(path)
    except (ValueError, pa.ArrowInvalid) as error:
        raise InputError(f"it cannot be read: {' '.join(str(error).split())}") from None
    raise InputError(f"it must end in .parquet or .csv, not {path.suffix!r}")


def _plain(value: Any) -> Value:  # noqa: ANN401 - whatever a cell holds
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | int | float) else str(value)


def _row(rows: pd.DataFrame, where: pd.Series) -> str:
    """The first of the rows, as people count them."""
    return f"row {int(rows.index[where.to_numpy()][0]) + 1}"


def _listed(rows: pd.DataFrame) -> str:
    return ", ".join(map(str, rows.columns))
