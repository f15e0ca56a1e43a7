"""What a search records, as Prometheus reads it from the agent of the node."""

import urllib.request
from dataclasses import replace

import pytest
import ray

from falcon_ray.runtime.metrics import METRICS, ClusterMetrics
from falcon_ray.runtime.ray_metrics import RayMetrics
from falcon_ray.runtime.search_metrics import SearchMetrics
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.observation import Measurement, Observation, TrialStatus
from tests.ray.processes import wait_until
from tests.unit.report.searches import HEADER

pytestmark = pytest.mark.ray

BATCH = Configuration({"batch_size": 1, "dtype": "float32"})


def scraped() -> dict[str, float]:
    """Every line of ours that the node's agent shows, by name and labels."""
    node = ray.nodes()[0]
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(address, timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    found = (line.rpartition(" ") for line in lines if line.startswith("ray_falcon_"))
    return {name: float(number) for name, _, number in found}


def amounts(name: str, **labels: str) -> list[float]:
    """Of every line with a name and these labels among others."""
    wanted = [f'{label}="{text}"' for label, text in labels.items()]
    return [
        number
        for line, number in scraped().items()
        if line.partition("{")[0] == name and all(each in line for each in wanted)
    ]


def amount(name: str, **labels: str) -> float:
    """Of the one line with a name and these labels among others."""
    (found,) = amounts(name, **labels)
    return found


def test_what_is_recorded_is_read_back_by_the_names_that_the_dashboard_asks_for(
    ray_address: str,  # noqa: ARG001 - Ray has to be there
) -> None:
    sink = RayMetrics()
    search = SearchMetrics(sink)
    search.search_started(HEADER, n_done=0, max_trials=3)
    search.suggested(0.004)
    search.trial_started("Trial 1", BATCH, "next")
    search.trial_started("Trial 2", BATCH, "next")
    trial = Observation(
        configuration=BATCH,
        status=TrialStatus.MEASURED,
        measurement=Measurement(saturation_rps=100.0),
    )
    search.trial_ended("Trial 1", trial, wall_s=12.0, usd=0.25)
    # A process may search again.
    later = SearchMetrics(RayMetrics())
    later.search_started(replace(HEADER, search_id="s2"), n_done=0, max_trials=3, usd=0.5)
    later.trial_ended("Trial 1", trial, wall_s=12.0)
    cluster = ClusterMetrics(sink)
    cluster.store_holds(n_rows=10, n_bytes=4096)
    cluster.leases({("CPU", "granted"): 1})

    wanted = {name for each in METRICS for name in each.exported}

    def shows_all() -> bool:
        # Searches of other tests have shown the same names before.
        ours = amounts("ray_falcon_trials_total", search=HEADER.search_id)
        later_ones = amounts("ray_falcon_spend_usd", search="s2")
        store = 4096 in amounts("ray_falcon_store_bytes")
        leases = 1 in amounts("ray_falcon_ledger_leases", gpu_type="CPU", state="granted")
        names = {line.partition("{")[0] for line in scraped()}
        return bool(ours and later_ones and store and leases and wanted <= names)

    wait_until(shows_all, "the agent shows every metric", timeout_s=60)
    of_search = {"search": HEADER.search_id}
    of_cpu = {**of_search, "gpu_type": "CPU"}
    assert amount("ray_falcon_trials_total", **of_cpu, status="measured") == 1
    assert amount("ray_falcon_trials_running", **of_cpu) == 1
    assert amount("ray_falcon_spend_usd", **of_search) == 0.25
    # 100 requests/s * 3600 s/h / 0.05 USD/h
    assert amount("ray_falcon_best_score_requests_per_usd", **of_search) == 7_200_000
    assert amount("ray_falcon_trial_seconds_count", **of_cpu) == 1
    assert amount("ray_falcon_trials_total", search="s2", status="measured") == 1
    assert amount("ray_falcon_spend_usd", search="s2") == 0.5
    # The session's own ledger and store may tell theirs beside these.
    assert 1 in amounts("ray_falcon_ledger_leases", gpu_type="CPU", state="granted")
    assert 4096 in amounts("ray_falcon_store_bytes")
