"""What a user may vary of the benchmark of clusters, and its command line."""

import argparse
from dataclasses import dataclass

from falcon_ray.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class DistributedOptions:
    """How much a study does; the defaults are what the README quotes.

    Attributes:
        repeat: How often each fault is made.

    Raises:
        InputError: It is below 1.
    """

    repeat: int = 3

    def __post_init__(self) -> None:
        if self.repeat < 1:
            raise InputError(f"--repeat must be 1 or more, got {self.repeat}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the benchmark of clusters."""
    default = DistributedOptions().repeat
    parser.add_argument_group("how much to do").add_argument(
        "--repeat",
        type=int,
        metavar="N",
        default=default,
        help=f"how often each fault is made (default {default})",
    )


def read_options(arguments: argparse.Namespace) -> DistributedOptions:
    """The options of a command line that was parsed with `add_arguments`.

    Raises:
        InputError: A value is out of range.
    """
    return DistributedOptions(repeat=arguments.repeat)
