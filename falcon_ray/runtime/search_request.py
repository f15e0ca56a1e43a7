"""What a user may ask of a search: one set of names for Python, YAML and the command line.

A field here is a keyword of `falcon_ray.search`, a key of a YAML file and, with dashes, a
flag. The request is read at the door (`search_job`) and taken apart there; no other module
sees it.
"""

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import yaml

from falcon_ray.errors import InputError
from falcon_ray.space.dimension import Value
from falcon_ray.space.objective import Objective, Slo, default_scenario, optional_slo
from falcon_ray.space.workload import LoadPath, Scenario, Workload

DEFAULT_PERCENTILE = 99.0

EnumT = TypeVar("EnumT", bound=Enum)

_POSITIVE = (
    "time_budget_s",
    "max_cost_usd",
    "provision_timeout_s",
    "offered_rps",
    "latency_budget_ms",
    "latency_percentile",
    "usd_per_hour",
    "max_output_error",
    "warm_up_s",
    "measure_s",
    "deploy_timeout_s",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchRequest:
    """Everything that a search can be told; all of it has a default but the target.

    Attributes:
        model: A reference model's name, `package.module:factory` or `path/to/file.py:factory`.
        app: Instead of a model, a builder of a Serve application, named in the same way.
        input_shape: Shape of one sample, where the factory has no `<factory>_inputs` function.
        input_dtype: Its dtype.
        search_space: Values by dimension name; replaces the values of the default space's
            dimensions of these names, and adds new ones.
        space_constraints: Further constraint expressions, e.g. `cpu_cores * replicas <= 4`.
        optimizer: Name of the optimizer.
        cost_aware: Whether what a trial may gain is weighed against what it costs.
        max_trials: Trial deployments before the confirmation.
        time_budget_s: Seconds after which no further trial starts.
        max_cost_usd: Dollars that the whole search may cost; no trial starts that could exceed it.
        parallel: Trials that run at once; None takes as many as fit the cluster.
        colocate: Whether trials may share a GPU, or a node where they take no GPU: more run at
            once, and measure what their neighbours do as well.
        provision_timeout_s: Longest time that a trial waits for a node that the autoscaler adds.
        emulate: GPU types to emulate: replicas take the time that the model is predicted to take
            there. For tests, demonstrations and planning; nothing is measured on a GPU.
        emulate_table: CSV file of times to take in place of predicted ones, with the columns
            gpu_type,dtype,batch_size,latency_ms; kept as an absolute path.
        stop_early: Whether no further trial starts once one more is expected to bring next to
            nothing.
        scenario: How requests arrive, as `Scenario` names it; None takes `server` with a latency
            limit and `offline` without one.
        load_path: Where they enter, as `LoadPath` names it; None takes `handle`, and `replica` with
            `emulate`, as the way there is this machine's and says nothing of the GPUs'.
        offered_rps: The one rate that a server has to keep the limit at; None looks for the
            highest.
        arrival_trace: File of arrival times that a server's requests follow, kept as an absolute
            path; None draws them at random.
        latency_budget_ms: Latency limit; without it the score is saturation throughput.
        latency_percentile: Share of requests, in percent, that has to stay within it.
        baseline: Your present configuration, to compare with; what it leaves out takes the
            default of plain Serve.
        prior: Whether the search starts from what is known about the model's operators.
        store: Where the cluster's knowledge is kept: a directory or s3://bucket/prefix; None
            takes the store of the cluster, or the default location.
        confirm: Whether the best, the runner-up and the baseline are deployed afresh at the end.
        confirm_rounds: How often each of them is, in turn.
        usd_per_hour: Price of one node of this cluster, where the catalogue does not have it.
        max_output_error: Largest accepted relative difference of outputs from float32.
        warm_up_s: Longest warm-up of a trial.
        measure_s: Longest measurement of a trial at saturation.
        deploy_timeout_s: Longest time for a deployment to start.
        seed: Makes suggestions, weights and arrival times repeatable.
        output_dir: Run directory; a fresh one under `runs/` when None.
        resume: Run directory of a search to go on with.
        address: Address of a Ray cluster.

    Raises:
        InputError: A value is out of range, or the target is missing or named twice.
    """

    model: str | None = None
    app: str | None = None
    input_shape: Sequence[int] | None = None
    input_dtype: str = "float32"
    search_space: Mapping[str, Sequence[Value]] | None = None
    space_constraints: Sequence[str] = ()
    optimizer: str = "mcts"
    cost_aware: bool = False
    max_trials: int = 6
    time_budget_s: float | None = None
    max_cost_usd: float | None = None
    parallel: int | None = None
    colocate: bool = False
    provision_timeout_s: float = 600.0
    emulate: Sequence[str] | None = None
    emulate_table: str | Path | None = None
    stop_early: bool = True
    scenario: str | None = None
    load_path: str | None = None
    offered_rps: float | None = None
    arrival_trace: str | Path | None = None
    latency_budget_ms: float | None = None
    latency_percentile: float = DEFAULT_PERCENTILE
    baseline: Mapping[str, Value] | None = None
    prior: bool = True
    store: str | None = None
    confirm: bool = True
    confirm_rounds: int = 2
    usd_per_hour: float | None = None
    max_output_error: float | None = None
    warm_up_s: float = 4.0
    measure_s: float = 8.0
    deploy_timeout_s: float = 120.0
    seed: int = 0
    output_dir: str | Path | None = None
    resume: str | Path | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.resume is None and (self.model is None) == (self.app is None):
            raise InputError(
                "name what to serve: a model (a reference model, package.module:factory or "
                "file.py:factory) or --app, one of the two"
            )
        if self.resume is not None and self.output_dir is not None:
            raise InputError("--resume goes on in its own directory; leave out --output-dir")
        self._check_texts()
        self._check_numbers()
        self._check_collections()
        self._check_emulated()
        if self.slo is None and self.latency_percentile != DEFAULT_PERCENTILE:
            raise InputError("latency_percentile needs a limit; give latency_budget_ms as well")
        self._check_workload()

    def _check_workload(self) -> None:
        if self.load_path is None:
            path = LoadPath.REPLICA if self.emulate else LoadPath.HANDLE
            object.__setattr__(self, "load_path", path.value)
        _named(LoadPath, "load_path", self.load_path)
        scenario = self.objective.scenario
        if self.arrival_trace is None:
            return
        object.__setattr__(self, "arrival_trace", absolute(self.arrival_trace))
        if scenario is not Scenario.SERVER:
            raise InputError(
                f"arrival_trace says when a server's requests arrive, and {scenario.value} has no "
                "arrivals; give latency_budget_ms, or leave the trace out"
            )

    def _check_texts(self) -> None:
        for name in ("model", "app", "input_dtype", "optimizer", "load_path", "store", "address"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, str):
                raise InputError(f"{name} must be a text, got {value!r}")
        for name in ("output_dir", "resume", "arrival_trace", "emulate_table"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, (str, Path)):
                raise InputError(f"{name} must be a path, got {value!r}")
        for name in ("prior", "confirm", "cost_aware", "stop_early", "colocate"):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise InputError(f"{name} must be true or false, got {value!r}")

    def _check_numbers(self) -> None:
        for name in ("max_trials", "seed", "confirm_rounds"):
            value = getattr(self, name)
            if not _is_whole(value):
                raise InputError(f"{name} must be a whole number, got {value!r}")
        if self.max_trials < 1:
            raise InputError(f"max_trials must be at least 1, got {self.max_trials}")
        if self.confirm_rounds < 1:
            raise InputError(
                f"confirm_rounds must be at least 1, got {self.confirm_rounds}; to measure nothing "
                "again, give confirm: false (--no-confirm)"
            )
        if self.parallel is not None and not (_is_whole(self.parallel) and self.parallel >= 1):
            raise InputError(
                f"parallel must be a whole number of at least 1, got {self.parallel!r}; leave it "
                "out to run as many trials as fit"
            )
        if self.seed < 0:
            raise InputError(f"seed must not be negative, got {self.seed}")
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not (_is_number(value) and value > 0):
                raise InputError(f"{name} must be a positive number, got {value!r}")
        if self.measure_s < 1:
            raise InputError(f"measure_s must be at least 1, got {self.measure_s:g}")

    def _check_collections(self) -> None:
        shape = () if self.input_shape is None else self.input_shape
        for size in _sequence("input_shape", shape):
            if isinstance(size, bool) or not isinstance(size, int) or size < 1:
                raise InputError(f"input_shape must hold positive whole numbers, got {size!r}")
        for name, values in _mapping("search_space", self.search_space).items():
            for value in _sequence(f"search_space: {name}", values):
                _check_value(f"search_space: {name}", value)
        for name, value in _mapping("baseline", self.baseline).items():
            _check_value(f"baseline: {name}", value)
        for expression in _sequence("space_constraints", self.space_constraints):
            if not isinstance(expression, str):
                raise InputError(f"space_constraints must hold expressions, got {expression!r}")

    def _check_emulated(self) -> None:
        if self.emulate_table is not None:
            object.__setattr__(self, "emulate_table", absolute(self.emulate_table))
        if self.emulate is None:
            if self.emulate_table is not None:
                raise InputError(
                    "emulate_table says how long emulated GPUs take; give emulate as well"
                )
            return
        names = _sequence("emulate", self.emulate)
        if not names or not all(isinstance(each, str) for each in names):
            raise InputError(
                f"emulate must hold names of GPU types, such as T4, got {self.emulate!r}; leave it "
                "out to measure real ones"
            )

    @property
    def slo(self) -> Slo | None:
        """The latency limit, if there is one."""
        return optional_slo(self.latency_budget_ms, self.latency_percentile)

    @property
    def objective(self) -> Objective:
        """What counts as better."""
        slo = self.slo
        if self.scenario is None:
            return Objective(slo, default_scenario(slo), self.offered_rps)
        return Objective(slo, _named(Scenario, "scenario", self.scenario), self.offered_rps)

    @property
    def workload(self) -> Workload:
        """The load that configurations are compared under."""
        return Workload(
            scenario=self.objective.scenario,
            path=LoadPath(self.load_path),
            offered_rps=self.offered_rps,
        )

    def to_json(self) -> dict[str, Any]:
        """The request as plain JSON values, without where it runs."""
        elsewhere = {"output_dir", "resume", "address"}
        said = {name: value for name, value in asdict(self).items() if name not in elsewhere}
        return said | {"scenario": self.objective.scenario.value}


def request_of(values: Mapping[str, Any]) -> SearchRequest:
    """A request from values by name; a value of None takes the default.

    Raises:
        InputError: A name is unknown (the nearest known one is said), or a value is wrong.
    """
    _check_names(values)
    return SearchRequest(**{name: each for name, each in values.items() if each is not None})


def resumed_request(stored: Mapping[str, Any], given: Mapping[str, Any]) -> SearchRequest:
    """The request of a search to go on with: what it was asked then, with a few changes.

    Args:
        stored: What `SearchRequest.to_json` gave when the search began.
        given: What is asked now.

    Raises:
        InputError: What is asked now would make it another search.
    """
    _check_names(given)
    # output_dir may not be given either, which the request itself explains.
    changeable = {
        *("max_trials", "time_budget_s", "stop_early", "confirm", "confirm_rounds"),
        *("max_cost_usd", "parallel", "provision_timeout_s"),
        *("resume", "address", "output_dir", "store"),
    }
    kept = request_of(stored).to_json()  # also what had no name when the search began
    merged = dict(kept)
    for name, value in given.items():
        is_path = name in {"arrival_trace", "emulate_table"} and isinstance(value, (str, Path))
        now = absolute(value) if is_path else value
        if name not in changeable and _plain(now) != _plain(kept[name]):
            raise InputError(
                f"a resumed search keeps its {name} ({_plain(kept[name])!r}); leave it out, or "
                "start a new search"
            )
        merged[name] = value
    return request_of(merged)


def absolute(path: str | Path) -> str:
    """The same file from wherever a search is resumed."""
    return str(Path(path).absolute())


def _plain(value: object) -> object:
    """A value as JSON gives it back."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(each) for each in value]
    return value


def read_request_file(path: Path) -> dict[str, Any]:
    """Values by name from a YAML file.

    Raises:
        InputError: The file cannot be read or is no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold keys and values, such as 'max_trials: 6'")
    return content


def _check_names(values: Mapping[str, Any]) -> None:
    known = [each.name for each in fields(SearchRequest)]
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name).replace("-", "_"), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"unknown key {name!r}; {hint}known are {', '.join(known)}")


def _named(kind: type[EnumT], name: str, value: object) -> EnumT:
    known = [each.value for each in kind]
    if value in known:
        return kind(value)
    near = difflib.get_close_matches(str(value).lower().replace("-", "_"), known, n=1, cutoff=0.6)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise InputError(f"there is no {name} {value!r}; {hint}known are {', '.join(known)}")


def _mapping(name: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{name} must hold values by dimension name, got {value!r}")
    for key in value:
        if not isinstance(key, str):
            raise InputError(f"{name}: a dimension's name must be a text, got {key!r}")
    return value


def _sequence(name: str, value: object) -> Sequence[Any]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(f"{name} must be a list of values, got {value!r}")
    return value


def _check_value(name: str, value: object) -> None:
    if not isinstance(value, (str, int, float)):
        raise InputError(f"{name}: a value must be a number or a text, got {value!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
