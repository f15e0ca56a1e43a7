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
from falcon_ray.report.contender import Contender
from falcon_ray.report.nothing_feasible import NothingFeasible
from falcon_ray.report.overhead import machinery_overhead_s
from falcon_ray.report.recommendation import Recommendation, recommend
from falcon_ray.report.record import SearchRecord
from falcon_ray.report.sensitivity import price_sensitivity
from falcon_ray.report.spend import spend_json
from falcon_ray.report.valuation import Valuation, value, value_trials
from falcon_ray.space.objective import SECONDS_PER_HOUR, Objective
from falcon_ray.space.observation import Observation

REPORT_NAME = "report.json"
TRIALS_NAME = "trials.csv"
SCHEMA_VERSION = 1

REQUESTS_FOLDER = "requests"

_METRICS = (
    "saturation_rps",
    "saturation_rps_ci_low",
    "saturation_rps_ci_high",
    "model_rps",
    "model_rps_ci_low",
    "model_rps_ci_high",
    "capacity_rps",
    "single_stream_rps",
    "single_stream_rps_ci_low",
    "single_stream_rps_ci_high",
    "single_latency_ms",
    "slo_verdict",
    "n_load_points",
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
    "gpu_memory_gib",
    "gpu_utilization_pct",
    "gpu_power_w",
    "output_error",
    "load_path",
    "n_drivers",
    "driver_lag_ms",
    "driver_cpu_share",
    "warm",
    "precise",
    "cut_short",
)


def write_report(directory: Path, record: SearchRecord) -> tuple[Path, Path]:
    """Write both files into the run directory.

    Returns:
        The paths of `report.json` and `trials.csv`.

    Raises:
        InputError: The directory cannot be written.
    """
    report, trials = directory / REPORT_NAME, directory / TRIALS_NAME
    content = report_json(record, directory)
    write_text(report, json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_text(trials, trials_csv(record))
    return report, trials


def request_files(directory: Path) -> tuple[Path, ...]:
    """The files with every request of a trial in a run directory, by name; often none."""
    return tuple(sorted((directory / REQUESTS_FOLDER).glob("*.parquet")))


def report_json(record: SearchRecord, directory: Path | None = None) -> dict[str, Any]:
    """Everything that is known about a search as plain JSON values.

    Numbers that are not finite, which JSON does not have, are null.

    Args:
        record: The search.
        directory: Its run directory, to name the files of raw requests.
    """
    header = record.header
    found = recommend(record)
    overhead = machinery_overhead_s(record)
    sensitivity = price_sensitivity(record.trials, header.objective, header.pricing)
    return _finite(
        {
            "schema_version": SCHEMA_VERSION,
            "emulated": header.emulated,
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
                    "usd": trial.usd,
                }
                | _observation(record, trial.observation)
                for trial in record.trials
            ],
            "interrupted_trials": [
                {"trial": each.number, "configuration": dict(each.configuration), "why": each.why}
                for each in record.interrupted
            ],
            "confirmations": [
                {
                    "role": each.role.value,
                    "round": each.round_number,
                    "wall_s": each.wall_s,
                    "usd": each.usd,
                }
                | _observation(record, each.observation)
                for each in record.confirmations
            ],
            "request_files": []
            if directory is None
            else [str(path.relative_to(directory)) for path in request_files(directory)],
            "machinery_overhead": {
                "median_s": overhead.median_s,
                "seconds_by_trial": {str(k): s for k, s in overhead.seconds_by_trial.items()},
            },
            "spend": spend_json(record),
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

    A metric that was not measured is an empty cell; `emulated` is True where GPUs were.
    """
    header = record.header
    names = list(dict.fromkeys(name for each in record.observations for name in each.configuration))
    extra = sorted({name for each in record.observations for name in _extra(each)})
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        (
            *("trial", "status", "emulated", *names, "requests_per_dollar"),
            *("requests_per_dollar_ci_low", "requests_per_dollar_ci_high"),
            *("usd_per_million_requests", "usd_per_hour", "instance_type"),
            *(*_METRICS, *extra, "path_limited"),
            *("wait_s", "deploy_s", "warm_up_s", "measure_s", "teardown_s", "wall_s", "usd"),
            *("attempts", "reason"),
        )
    )
    valuations = value_trials(record.trials, header.objective, header.pricing)
    for trial, valued in zip(record.trials, valuations, strict=True):
        observation, times = trial.observation, trial.observation.times
        measured = observation.measurement
        writer.writerow(
            (
                *(trial.number, valued.verdict.value, header.emulated),
                *(observation.configuration.get(name) for name in names),
                *(valued.score, *_score_interval(valued, header.objective)),
                *(_usd_per_million(valued), valued.usd_per_hour, valued.instance_type),
                *(None if measured is None else getattr(measured, name) for name in _METRICS),
                *(_extra(observation).get(name) for name in extra),
                None if measured is None else measured.path_limited,
                *(times.wait_s, times.deploy_s, times.warm_up_s, times.measure_s, times.teardown_s),
                *(trial.wall_s, trial.usd, observation.attempts, valued.reason),
            )
        )
    return out.getvalue()


def _score_interval(valued: Valuation, objective: Objective) -> tuple[float | None, float | None]:
    """The 95 % interval of requests per dollar within the one deployment, where it is known."""
    measured = valued.measurement
    if measured is None or valued.score is None or objective.rate_metric != "saturation_rps":
        return None, None
    per_rps = SECONDS_PER_HOUR / valued.usd_per_hour
    low, high = (
        None if end is None else end * per_rps
        for end in (measured.saturation_rps_ci_low, measured.saturation_rps_ci_high)
    )
    return low, high


def _usd_per_million(valued: Valuation) -> float | None:
    return None if valued.score is None else 1e6 / valued.score


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
        "usd_per_million_requests": _usd_per_million(valued),
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
        "usd_per_million_requests": _usd_per_million(found.chosen),
        "gain": _gain(found.gain),
        "note": found.note,
        "contenders": [_contender(each) for each in found.contenders],
    }


def _contender(each: Contender) -> dict[str, Any]:
    return {
        "role": each.role.value,
        "configuration": dict(each.configuration),
        "standing": each.standing.value,
        "n_deployments": len(each.deployments),
        "n_served": each.n_served,
        "rate_interval_rps": None
        if each.rate is None
        else [each.rate.ci_low_rps, each.rate.ci_high_rps],
        "gain": _gain(each.gain),
    } | _worth(each.fresh)


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
