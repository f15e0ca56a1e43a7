"""What a search would do, in lines for people: the space, the load, and the time it takes.

Nothing is decided here; that was done in `search_setup`.
"""

from collections.abc import Sequence

from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.search_request import SearchRequest
from falcon_ray.runtime.search_setup import measurement_plan
from falcon_ray.space.workload import Scenario
from falcon_ray.trial.arrivals import ArrivalTrace
from falcon_ray.trial.plan import MeasurementPlan

DEPLOYMENT_S = 6.0
"""Rough seconds of a trial beside warm-up and measurement, for estimates only."""


def describe_plan(request: SearchRequest, header: SearchHeader) -> list[str]:
    """What a dry run says: the space, its constraints, and what a search would take."""
    space, plan = header.space, measurement_plan(request)
    trial_s = DEPLOYMENT_S + request.warm_up_s + request.measure_s + plan.model_s
    n_trials = min(request.max_trials, len(space))
    n_deployments = n_trials + _n_confirmations(request, header, n_trials=n_trials)
    return [
        f"{space.n_combinations} combinations of "
        + ", ".join(f"{each.name} {_values(each.values)}" for each in space.dimensions),
        *(f"constraint: {each.expression}" for each in space.constraints),
        f"{len(space)} candidates; baseline: {header.baseline}",
        _describe_load(plan),
        *_describe_confirmation(request, header, n_trials=n_trials),
        (
            f"{n_deployments} deployments of at most {trial_s:.0f} s each without load points: "
            f"about {n_deployments * trial_s / 60:.1f} minutes"
        ),
        *_describe_certifying(plan),
        *(
            f"priced as {each.instance_type}: {each.usd_per_hour:.4g} USD/h ({each.price_source})"
            for each in header.pricing.instances
        ),
    ]


def _n_compared(header: SearchHeader, *, n_trials: int) -> int:
    """Configurations that are measured again: at most the best two, and the baseline."""
    return min(n_trials, 2) + (header.baseline is not None)


def _n_confirmations(request: SearchRequest, header: SearchHeader, *, n_trials: int) -> int:
    if not request.confirm:
        return 0
    return request.confirm_rounds * _n_compared(header, n_trials=n_trials)


def _describe_confirmation(
    request: SearchRequest, header: SearchHeader, *, n_trials: int
) -> list[str]:
    if not request.confirm:
        return []
    best = "the best two" if n_trials > 1 else "the best"
    compared = best if header.baseline is None else f"{best} and the baseline"
    rounds = "1 round" if request.confirm_rounds == 1 else f"{request.confirm_rounds} rounds"
    return [f"confirmation: {compared} are measured again, in turn, {rounds}"]


def _describe_load(plan: MeasurementPlan) -> str:
    workload, arrivals = plan.workload, plan.arrivals
    line = f"load: scenario {workload.scenario.value}, path {workload.path.value}"
    if workload.scenario is not Scenario.SERVER:
        return line
    if isinstance(arrivals, ArrivalTrace):
        n, mean_rps = len(arrivals.times_s), arrivals.rate_rps
        line += f", arrivals as in a trace of {n} ({mean_rps:.4g}/s on average)"
    else:
        line += ", random arrivals (Poisson)"
    if workload.offered_rps is None:
        return f"{line}, up to the highest rate within the limit"
    return f"{line}, at {workload.offered_rps:g}/s"


def _describe_certifying(plan: MeasurementPlan) -> list[str]:
    if plan.slo is None or plan.workload.scenario is not Scenario.SERVER:
        return []
    percentile, needed = plan.slo.latency_percentile, plan.requests_to_certify
    given = plan.workload.offered_rps
    if given is not None:
        least_s, most_s = needed / given, plan.load_point_s(given)
        return [
            (
                f"certifying p{percentile:g} takes {needed} requests, none of them over the limit: "
                f"{least_s:.3g} s at {given:g}/s; the load lasts at most {most_s:.3g} s"
            )
        ]
    costs = ", ".join(f"{needed / rate:.3g} s at {rate}/s" for rate in (10, 100, 1000))
    lowest_rps = plan.lowest_certifiable_rps
    line = (
        f"certifying p{percentile:g} takes {needed} requests per load point, none of them over the "
        f"limit: {costs}; up to {plan.max_load_points} load points a trial, each of at most "
        f"{plan.load_point_max_s:g} s, or at low rates {plan.certify_max_s:g} s; the lowest rate "
        f"that can be certified is {lowest_rps:.3g}/s"
    )
    return [line]


def _values(values: Sequence[object]) -> str:
    return "{" + ", ".join(str(value) for value in values) + "}"
