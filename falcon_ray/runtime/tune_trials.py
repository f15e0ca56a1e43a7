"""Ray Tune as the executor of trials: it asks the searcher, runs one trial, reports back.

Tune keeps nothing that matters: the journal is the truth, and Tune's own files go to a
temporary directory.
"""

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping

from ray import tune
from ray.tune import TuneError
from ray.tune.search import ConcurrencyLimiter

from falcon_ray.errors import ClusterError
from falcon_ray.runtime.progress import PHASE_KEY, PhaseCallback, SearchDisplay
from falcon_ray.runtime.searcher import OBSERVATION_KEY, FalconSearch
from falcon_ray.runtime.serve_trial import TrialSetup, run_serve_trial
from falcon_ray.space.configuration import Configuration
from falcon_ray.space.dimension import Value

# A trial's replicas take the real resources, and may take every CPU of a node: the process
# that drives them asks for one byte of memory, which every node has, and for no CPU at all.
DRIVER_RESOURCES = tune.PlacementGroupFactory([{"memory": 1}])


def run_trials(
    searcher: FalconSearch, setup: TrialSetup, *, app_prefix: str, display: SearchDisplay
) -> None:
    """Run trials one after the other until the searcher has finished.

    Raises:
        KeyboardInterrupt: On SIGINT, once Tune has ended the trial's process.
        ClusterError: Tune gave up.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # How trials end is said by the display and the journal.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    storage = tempfile.mkdtemp(prefix="falcon-tune-")
    try:
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(_trainable, setup=setup, app_prefix=app_prefix),
                DRIVER_RESOURCES,
            ),
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(searcher, max_concurrent=1),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                storage_path=storage, verbose=0, callbacks=[PhaseCallback(display)]
            ),
        )
        tuner.fit()
    except TuneError as error:
        raise ClusterError(f"Ray Tune gave up: {str(error).strip().splitlines()[-1]}") from error
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if not searcher.end_reason:
        # Tune takes SIGINT for itself, stops what runs, and returns as if all were done.
        raise KeyboardInterrupt


def _trainable(config: Mapping[str, Value], *, setup: TrialSetup, app_prefix: str) -> None:
    observation = run_serve_trial(
        setup,
        Configuration(config),
        app_name=f"{app_prefix}{tune.get_context().get_trial_id()}",
        on_phase=_report_phase,
    )
    # As text: Tune flattens nested results before the searcher sees them.
    tune.report({OBSERVATION_KEY: json.dumps(observation.to_json())})


def _report_phase(phase: str) -> None:
    tune.report({PHASE_KEY: phase})
