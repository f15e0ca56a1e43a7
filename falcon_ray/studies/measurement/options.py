"""What a user may vary of the benchmark of measurements, and its command line."""

import argparse
from dataclasses import dataclass, fields

from falcon_ray.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementOptions:
    """How much a study does; the defaults are what the README quotes.

    Attributes:
        runs: In virtual time, of everything that is run there.
        deployments: Real ones of the known service; the real model is deployed twice as often.
        repeat: How often each fault is injected.

    Raises:
        InputError: A number is below 1.
    """

    runs: int = 100
    deployments: int = 5
    repeat: int = 3

    def __post_init__(self) -> None:
        for each in fields(self):
            if getattr(self, each.name) < 1:
                raise InputError(f"--{each.name} must be 1 or more, got {getattr(self, each.name)}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark of measurements."""
    default = MeasurementOptions()
    options = parser.add_argument_group("how much to do")
    for name, words in (
        ("runs", "runs in virtual time"),
        ("deployments", "real deployments of the known service; twice as many of the real model"),
        ("repeat", "how often each fault is injected"),
    ):
        options.add_argument(
            f"--{name}",
            type=int,
            metavar="N",
            default=getattr(default, name),
            help=f"{words} (default {getattr(default, name)})",
        )


def read_options(arguments: argparse.Namespace) -> MeasurementOptions:
    """The options of a command line that was parsed with `add_arguments`.

    Raises:
        InputError: A value is out of range.
    """
    return MeasurementOptions(
        **{each.name: getattr(arguments, each.name) for each in fields(MeasurementOptions)}
    )
