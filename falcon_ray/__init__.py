"""falcon_ray finds the serving configuration that buys the most requests per dollar.

Importing it loads neither Ray nor torch; using it does.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from falcon_ray.report.estimate import Estimate
    from falcon_ray.report.result import SearchResult
    from falcon_ray.runtime.searcher import FalconSearch
    from falcon_ray.space.configuration import Configuration, ConfigurationSpace

__all__ = [
    "Configuration",
    "ConfigurationSpace",
    "Estimate",
    "FalconSearch",
    "SearchResult",
    "estimate",
    "search",
]

_HOMES = {
    "Configuration": "falcon_ray.space.configuration",
    "ConfigurationSpace": "falcon_ray.space.configuration",
    "Estimate": "falcon_ray.report.estimate",
    "FalconSearch": "falcon_ray.runtime.searcher",
    "SearchResult": "falcon_ray.report.result",
}


def search(model: str | None = None, *, progress: bool = False, **options: Any) -> "SearchResult":  # noqa: ANN401
    """Search for the serving configuration that buys the most requests per dollar.

    Every trial is a real Ray Serve deployment under real load, on the Ray cluster that this
    process is connected to, or at `address` or RAY_ADDRESS, or else on this machine.

    Args:
        model: A reference model's name, `package.module:factory` or `path/to/file.py:factory`.
        progress: Whether to print the trials as they go.
        **options: The fields of `falcon_ray.runtime.search_request.SearchRequest`, which are
            also the flags of `falcon-ray search`: max_trials, latency_budget_ms, ...

    Raises:
        InputError: Something given cannot work; nothing was deployed.
        ClusterError: Ray is out of reach, or breaks trial after trial.
        SearchInterruptedError: Stopped by a signal; the message says how to go on.
    """
    from falcon_ray.runtime import search_job

    display = None
    if progress:
        from rich.console import Console

        from falcon_ray.runtime.progress import RichDisplay

        display = RichDisplay(Console(stderr=True))
    if model is not None:
        options["model"] = model
    return search_job.search(options, display)


def estimate(model: str, **options: Any) -> "Estimate":  # noqa: ANN401
    """Say what to expect of a model on every GPU, without a trial, a GPU or Ray.

    Args:
        model: A reference model's name, `package.module:factory`, `path/to/file.py:factory`, or
            the `config.json` of a language model.
        **options: The fields of `falcon_ray.runtime.estimate_request.EstimateRequest`, which are
            also the flags of `falcon-ray estimate`: devices, latency_budget_ms, top, ...

    Raises:
        InputError: Something given cannot work, or nothing is known about any device.
    """
    from falcon_ray.runtime import estimate_job
    from falcon_ray.runtime.estimate_request import request_of

    return estimate_job.estimate(request_of({"model": model, **options}))


def __getattr__(name: str) -> object:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
