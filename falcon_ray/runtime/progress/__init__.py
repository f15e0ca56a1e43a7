"""What a search shows while it runs: what it tells, who listens, and how it looks."""

from falcon_ray.runtime.progress.display import DisplayGroup, SearchDisplay, SilentDisplay
from falcon_ray.runtime.progress.phase_callback import PHASE_KEY, PhaseCallback
from falcon_ray.runtime.progress.rich_display import RichDisplay

__all__ = [
    "PHASE_KEY",
    "DisplayGroup",
    "PhaseCallback",
    "RichDisplay",
    "SearchDisplay",
    "SilentDisplay",
]
