"""Ray Tune as the executor of trials: it asks the searcher, runs one trial, reports back.

Tune keeps nothing that matters: the journal is the truth, and Tune's own files go to a
directory that is gone when the search ends.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune import TuneError
from ray.tune.search import ConcurrencyLimiter

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.agents.shared import search_agents
from falcon_ray.runtime.agents.stock import Agents
from falcon_ray.runtime.progress import PHASE_KEY, PhaseCallback, SearchDisplay
from falcon_ray.runtime.request_records import RequestFolder
from falcon_ray.runtime.searcher import OBSERVATION_KEY, FalconSearch
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.space.configuration import Configuration

RATE_KEY = "falcon:rate_to_beat_rps"
NAME_KEY = "falcon:trial"
"""What the search tells a trial beside its configuration; no dimension can have such a name."""

# A trial's replicas take the real resources, and may take every CPU of a node: the process that
# drives them takes none. It stays on the head, where no node that is lost or let go ends it.
HEAD = "node:__internal_head__"
HEAD_PART = 0.0001
DRIVER_RESOURCES = tune.PlacementGroupFactory([{HEAD: HEAD_PART}])


def run_trials(
    searcher: FalconSearch,
    setup: TrialSetup,
    *,
    parallel: int,
    requests: RequestFolder,
    app_prefix: str,
    scratch: Path,
    display: SearchDisplay,
    label_of: Callable[[str], str | None],
) -> None:
    """Run trials until the searcher has finished.

    Args:
        searcher: Suggests; under `NAME_KEY` it names each trial, and under `RATE_KEY` it may give
            the rate that is to be beaten.
        setup: What the trials have in common.
        parallel: How many at once.
        requests: Where the requests of each are kept.
        app_prefix: Of the names of Serve applications.
        scratch: A directory for Tune's own files. It is emptied first, of what a killed search
            left there, and gone at the end.
        display: Told about phases.
        label_of: What it calls a trial, by Tune's id; None where that has ended.

    Raises:
        KeyboardInterrupt: On SIGINT, once Tune has ended the trial's process.
        ClusterError: Tune gave up.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # How trials end is said by the display and the journal.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    shutil.rmtree(scratch, ignore_errors=True)
    try:
        with search_agents(setup.request, setup.target.response_metrics) as agents:
            tuner = tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(
                        _trainable,
                        setup=replace(setup, agents=agents),
                        requests=requests,
                        app_prefix=app_prefix,
                    ),
                    DRIVER_RESOURCES,
                ),
                tune_config=tune.TuneConfig(
                    search_alg=ConcurrencyLimiter(searcher, max_concurrent=parallel),
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=str(scratch.resolve()),
                    verbose=0,
                    callbacks=[
                        PhaseCallback(display, label_of),
                        _EndedTrials(agents, app_prefix),
                    ],
                ),
            )
            tuner.fit()
    except TuneError as error:
        raise ClusterError(f"Ray Tune gave up: {str(error).strip().splitlines()[-1]}") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if not searcher.end_reason:
        # Tune takes SIGINT for itself, stops what runs, and returns as if all were done.
        raise KeyboardInterrupt


class _EndedTrials(tune.Callback):
    """Has ended what a trial had borrowed whose process is gone; one that ended has nothing."""

    def __init__(self, agents: Agents, app_prefix: str) -> None:
        self._agents = agents
        self._app_prefix = app_prefix

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ANN401, ARG002 - Tune's signature
        """Nobody else can know."""
        self._agents.forget(f"{self._app_prefix}{trial.config[NAME_KEY]}")


def _trainable(
    config: Mapping[str, Any], *, setup: TrialSetup, requests: RequestFolder, app_prefix: str
) -> None:
    values = dict(config)
    rate_to_beat_rps, name = values.pop(RATE_KEY, None), values.pop(NAME_KEY)
    configuration = Configuration(values)
    with requests.recording(name, configuration) as records:
        observation = run_serve_trial(
            setup,
            configuration,
            app_name=f"{app_prefix}{name}",
            on_phase=records.watching(_report_phase),
            rate_to_beat_rps=rate_to_beat_rps,
            on_requests=records.add,
        )
    # As text: Tune flattens nested results before the searcher sees them.
    tune.report({OBSERVATION_KEY: json.dumps(observation.to_json())})


def _report_phase(phase: str) -> None:
    tune.report({PHASE_KEY: phase})
