"""Which cluster a command is about: its file and whose credentials, as every verb is told.

The module knows the options that verbs share. It does not know what a verb does.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from cluster.clients import Clients
from cluster.spec import ClusterSpec
from cluster.spec_file import DEFAULT_FILE, read
from cluster.surroundings import Surroundings
from falcon_ray.errors import InputError
from falcon_ray.space.catalogue import Catalogue

Verb = Callable[..., Any]
"""A function that click calls with its options, by name."""

JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
REGION = click.option("--region", help="Of AWS.  [default: that of the cluster's file]")
_CONFIG = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="The cluster's file.  [default: cluster/cluster.yaml]",
)
_PROFILE = click.option("--profile", metavar="NAME", help="Credentials of AWS to use.")
_FILE = click.argument("file", required=False, type=click.Path(path_type=Path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What the shared options say.

    Attributes:
        outside: Account, clock, answers.
        path: Of the cluster's file.
        profile: Of credentials; None for the usual ones.
    """

    outside: Surroundings
    path: Path
    profile: str | None

    def spec(self) -> ClusterSpec:
        """What the file asks for.

        Raises:
            InputError: It cannot be read, or something in it does not fit.
        """
        return read(self.path, Catalogue.packaged())

    def connect(self, region: str) -> Clients:
        """Clients of a region; nothing is called yet.

        Raises:
            InputError: There is no such profile.
        """
        return self.outside.connect(region, self.profile)

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only if the user says so, here or before.

        Raises:
            InputError: The answer is no, or nobody can answer.
        """
        if not (yes or self.outside.confirm(question)):
            raise InputError("not confirmed; nothing was changed")


def of_file(verb: Verb) -> Verb:
    """Give a verb its `Target`; the file is an argument or --config."""
    return _FILE(of_option(verb))


def of_option(verb: Verb) -> Verb:
    """Give a verb its `Target`; the file is --config, for the arguments are something else."""

    @functools.wraps(verb)
    def with_target(
        outside: Surroundings,
        /,
        *,
        config: Path | None,
        profile: str | None,
        file: Path | None = None,
        **options: Any,  # noqa: ANN401 - the verb's own
    ) -> Any:  # noqa: ANN401 - the verb's own
        if file is not None and config is not None:
            raise InputError(f"two files are given, {file} and {config}; give one")
        path = file or config or DEFAULT_FILE
        return verb(Target(outside=outside, path=path, profile=profile), **options)

    return _CONFIG(_PROFILE(click.pass_obj(with_target)))
