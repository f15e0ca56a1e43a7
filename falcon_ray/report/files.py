"""The report as files: `report.json` for programs, `trials.csv` for spreadsheets.

Both are computed from the journal alone and may be written again at any time.
"""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from falcon_ray.report.atomic import write_text
from falcon_ray.report.comparison import Gain
from falcon_ray.report.recommendation import NothingFeasible, Recommendation, recommend
from falcon_ray.report.record import SearchRecord, machinery_overhead_s
from falcon_ray.report.sensitivity import price_sensitivity
from falcon_ray.report.valuation import Valuation, value, value_trials
from falcon_ray.space.observation import Observation

REPORT_NAME = "report.json"
TRIALS_NAME = "trials.csv"
SCHEMA_VERSION = 1

_METRICS = (
    "saturation_rps",
    "saturation_rps_ci_low",
    "saturation_rps_ci_high",
    "model_rps",
    "capacity_rps",
    "floor_latency_ms",
    "service_time_ms",
    "latency_p50_ms",
    "latency_p90_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "latency_p999_ms",
    "n_requests",
    "error_rate",
    "memory_gib",
    "output_error",
)


def write_report(directory: Path, record: SearchRecord) -> tuple[Path, Path]:
    """Write both files into the run directory.

    Returns:
        The paths of `report.json` and `trials.csv`.

    Raises:
        InputError: The directory cannot be written.
    """
    report, trials = directory / REPORT_NAME, directory / TRIALS_NAME
    write_text(report, json.dumps(report_json(record), indent=2, allow_nan=False) + "\n")
    write_text(trials, trials_csv(record))
    return report, trials


def report_json(record: SearchRecord) -> dict[str, Any]:
    """Everything that is known about a search as plain JSON values.

    Numbers that are not finite, which JSON does not have, are null.
    """
    header = record.header
    found = recommend(record)
    overhead = machinery_overhead_s(record)
    sensitivity = price_sensitivity(record.trials, header.objective, header.pricing)
    return _finite(
        {
            "schema_version": SCHEMA_VERSION,
            "sentence": found.sentence,
            "recommendation": _recommendation(found),
            "nothing_feasible": _nothing_feasible(found),
            "search": header.to_json()
            | {
                "started": record.started.isoformat(),
                "end_reason": record.end_reason,
                "conclusion": _conclusion(record),
            },
            "trials": [
                {
                    "trial": trial.number,
                    "why": trial.why,
                    "expected": dict(trial.expected),
                    "wall_s": trial.wall_s,
                }
                | _observation(record, trial.observation)
                for trial in record.trials
            ],
            "interrupted_trials": [
                {"trial": each.number, "configuration": dict(each.configuration), "why": each.why}
                for each in record.interrupted
            ],
            "confirmations": [
                {"role": each.role.value, "wall_s": each.wall_s}
                | _observation(record, each.observation)
                for each in record.confirmations
            ],
            "machinery_overhead": {
                "median_s": overhead.median_s,
                "seconds_by_trial": {str(k): s for k, s in overhead.seconds_by_trial.items()},
            },
            "price_sensitivity": {
                "sentence": sensitivity.sentence,
                "moves": [
                    asdict(move) | {"winner": dict(move.winner)} for move in sensitivity.moves
                ],
            },
        }
    )


def trials_csv(record: SearchRecord) -> str:
    """One row for each trial that ended; units stand at the end of the columns' names.

    A metric that was not measured is an empty cell.
    """
    header = record.header
    names = list(dict.fromkeys(name for each in record.observations for name in each.configuration))
    extra = sorted({name for each in record.observations for name in _extra(each)})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        (
            *("trial", "status", *names, "requests_per_dollar", "usd_per_hour", "instance_type"),
            *(*_METRICS, *extra, "path_limited"),
            *("deploy_s", "warm_up_s", "measure_s", "teardown_s", "wall_s", "attempts", "reason"),
        )
    )
    valuations = value_trials(record.trials, header.objective, header.pricing)
    for trial, valued in zip(record.trials, valuations, strict=True):
        observation, times = trial.observation, trial.observation.times
        measured = observation.measurement
        writer.writerow(
            (
                *(trial.number, valued.verdict.value),
                *(observation.configuration.get(name) for name in names),
                *(valued.score, valued.usd_per_hour, valued.instance_type),
                *(None if measured is None else getattr(measured, name) for name in _METRICS),
                *(_extra(observation).get(name) for name in extra),
                None if measured is None else measured.path_limited,
                *(times.deploy_s, times.warm_up_s, times.measure_s, times.teardown_s),
                *(trial.wall_s, observation.attempts, valued.reason),
            )
        )
    return out.getvalue()


def _extra(observation: Observation) -> Mapping[str, float]:
    return {} if observation.measurement is None else observation.measurement.extra


def _observation(record: SearchRecord, observation: Observation) -> dict[str, Any]:
    valued = value(observation, record.header.objective, record.header.pricing)
    return observation.to_json() | _worth(valued)


def _worth(valued: Valuation) -> dict[str, Any]:
    return {
        "verdict": valued.verdict.value,
        "reason": valued.reason,
        "requests_per_dollar": valued.score,
        "requests_per_second": valued.rate_rps,
        "usd_per_hour": valued.usd_per_hour,
        "instance_type": valued.instance_type,
    }


def _conclusion(record: SearchRecord) -> dict[str, object] | None:
    end = record.conclusion
    if end is None:
        return None
    return {
        "recommended": None if end.recommended is None else dict(end.recommended),
        "expected_gain": end.expected_gain,
        "probability_of_better": end.probability_of_better,
    }


def _recommendation(found: Recommendation | NothingFeasible) -> dict[str, Any] | None:
    if isinstance(found, NothingFeasible):
        return None
    return {
        "configuration": dict(found.configuration),
        "standing": found.standing.value,
        "is_baseline": found.is_baseline,
        "requests_per_dollar": found.requests_per_dollar,
        "requests_per_second": found.requests_per_second,
        "usd_per_hour": found.chosen.usd_per_hour,
        "instance_type": found.chosen.instance_type,
        "gain": _gain(found.gain),
    }


def _gain(gain: Gain | None) -> dict[str, Any] | None:
    if gain is None:
        return None
    return asdict(gain) | {
        "uncertainty": gain.uncertainty.value,
        "shows_difference": gain.shows_difference,
    }


def _nothing_feasible(found: Recommendation | NothingFeasible) -> dict[str, Any] | None:
    if isinstance(found, Recommendation):
        return None
    closest = found.closest
    return {
        "closest_configuration": None if closest is None else dict(closest.configuration),
        "excess_ms": found.excess_ms,
        "exit_code": found.error_type.exit_code,
    }


def _finite(tree: Any) -> Any:  # noqa: ANN401
    """The same JSON values with null for numbers that are not finite."""
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else None
    if isinstance(tree, Mapping):
        return {k: _finite(v) for k, v in cast("Mapping[str, Any]", tree).items()}
    if isinstance(tree, Sequence) and not isinstance(tree, str):
        return [_finite(each) for each in cast("Sequence[Any]", tree)]
    return tree
