"""Priors with a part taken away or spoilt, to see what that part earns.

It changes what is expected, never what happens.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from falcon_ray.errors import InputError
from falcon_ray.knowledge.mixture import ExpectedMetric, ExpertMixture
from falcon_ray.optimizers.history import IndexArray
from falcon_ray.space.configuration import FloatArray

CONSTANT = "constant"
"""Name of the expert that expects nothing in particular."""


def permuted(prior: ExpertMixture, *, seed: int) -> ExpertMixture:
    """The same expectations, each of another candidate: confident and wrong.

    One permutation for all experts, memory and operators, so that they still agree with each
    other; the constant expert stays as it is.

    Args:
        prior: Of n candidates.
        seed: Of the permutation.
    """
    order = np.random.default_rng(seed).permutation(prior.n)
    return ExpertMixture(
        experts=tuple(
            each if each.name == CONSTANT else replace(each, metrics=_moved(each.metrics, order))
            for each in prior.experts
        ),
        log_memory_share=None if prior.log_memory_share is None else prior.log_memory_share[order],
        operator_seconds={name: s[order] for name, s in prior.operator_seconds.items()},
    )


def only(prior: ExpertMixture, name: str) -> ExpertMixture:
    """One expert alone; memory and operators stay.

    Raises:
        InputError: There is no expert of that name.
    """
    found = tuple(each for each in prior.experts if each.name == name)
    if not found:
        known = ", ".join(each.name for each in prior.experts)
        raise InputError(f"there is no expert {name!r}; the prior has {known}")
    return replace(prior, experts=found)


def _moved(metrics: Mapping[str, ExpectedMetric], order: IndexArray) -> dict[str, ExpectedMetric]:
    return {
        name: replace(each, mean=each.mean[order], residual_sd=_moved_sd(each.residual_sd, order))
        for name, each in metrics.items()
    }


def _moved_sd(sd: float | FloatArray, order: IndexArray) -> float | FloatArray:
    return sd if isinstance(sd, float | int) else np.broadcast_to(sd, order.shape)[order]
