"""From a search's header to what it emulates, and back from its journal.

The times are computed once, when a search begins, and stand in its journal from then on. The
module does not know how trials run.
"""

from dataclasses import replace

from falcon_ray.errors import InputError
from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.report.record import SearchHeader
from falcon_ray.runtime.decompose import decompose_model
from falcon_ray.runtime.emulated.target import EmulatedTarget
from falcon_ray.runtime.emulated.times import (
    EmulatedTimes,
    TimedBatch,
    predicted_times,
    tabled_times,
)
from falcon_ray.runtime.target import ModelTarget, Target
from falcon_ray.space.catalogue import Catalogue

TIMES_KEY = "emulation"
"""Under which a search's settings keep what it emulates."""


def emulated_model(target: Target) -> ModelTarget:
    """The model that is to be emulated.

    Raises:
        InputError: The target is an application, of which nothing is predicted.
    """
    if not isinstance(target, ModelTarget):
        raise InputError(
            f"{target.name} is an application, and only a model's times are predicted; give a "
            "model, or leave out emulate"
        )
    return target


def with_emulation(
    header: SearchHeader,
    target: ModelTarget,
    profile: Profile,
    batches: tuple[TimedBatch, ...] = (),
    *,
    table: str = "",
) -> SearchHeader:
    """The header of the same search on emulated GPUs, with the times of every batch.

    Args:
        header: Of a search whose space names GPU types.
        target: The model.
        profile: What predicts its times.
        batches: In place of predicted times, a user's own.
        table: What these are called, in words.

    Raises:
        InputError: The model cannot be traced, or nothing says how long it takes somewhere in the
            space.
    """
    decomposition = decompose_model(target.model, name=header.target)
    if batches:
        times = tabled_times(batches, decomposition, source=f"given by {table or 'a table'}")
        times.check_covers(header.space, header.baseline)
    else:
        latencies = Latencies(profile, Catalogue.packaged())
        times = predicted_times(header.space, header.baseline, decomposition, latencies)
    settings = {**header.settings, TIMES_KEY: times.to_json()}
    return replace(header, emulated=True, settings=settings)


def emulated_target(
    header: SearchHeader, target: ModelTarget, *, app_prefix: str
) -> EmulatedTarget:
    """What the trials of an emulated search deploy.

    Args:
        header: As `with_emulation` made it, or a journal gives it back.
        target: The model.
        app_prefix: What the names of the search's applications begin with.

    Raises:
        InputError: The search is not emulated, or its journal does not say what it emulates.
    """
    kept = header.settings.get(TIMES_KEY)
    if not header.emulated or not isinstance(kept, dict):
        raise InputError(
            f"search {header.search_id} does not say what it emulates; start a new one with emulate"
        )
    return EmulatedTarget(
        target, EmulatedTimes.from_json(kept), seed=header.seed, app_prefix=app_prefix
    )
