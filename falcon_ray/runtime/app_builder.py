"""What `serve run` imports for an exported `--app` target.

The user's builder is called as in a trial, with a `Configuration`.
"""

from pydantic import BaseModel, ConfigDict
from ray import serve

from falcon_ray.runtime.references import Reference
from falcon_ray.runtime.target import AppTarget
from falcon_ray.space.configuration import Configuration


class AppArguments(BaseModel):
    """Typed arguments of the application, as they stand in a Serve config file."""

    model_config = ConfigDict(extra="forbid")

    builder: str
    """`package.module:builder` or `/path/to/file.py:builder`."""
    configuration: dict[str, str | int | float]
    """Value by dimension name."""
    search_path: str = ""
    """A directory to import the builder from."""


def build(args: AppArguments) -> serve.Application:
    """The user's application in one configuration."""
    target = AppTarget(Reference(args.builder, args.search_path))
    return target.application(Configuration(args.configuration))
