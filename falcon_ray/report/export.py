"""The recommendation as a Serve config file, for `serve run` and `serve deploy`.

The file names what to import and its arguments. This module does not know what the
application does with them, and imports neither.
"""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from falcon_ray.errors import InputError
from falcon_ray.report.atomic import write_text
from falcon_ray.report.recommendation import Recommendation
from falcon_ray.report.wording import describe_count
from falcon_ray.space.workload import LoadPath

TORCH_APP = "falcon_ray.runtime.torch_app:build"
HOST = "127.0.0.1"
PORT = 8000
DEFAULT_REQUEST = f"curl http://{HOST}:{PORT}/"
_WIDTH = 98
_PATHS = {
    LoadPath.HANDLE.value: "through the deployment handle; over HTTP expect less.",
    LoadPath.HTTP.value: "over HTTP.",
    LoadPath.REPLICA.value: "inside the replica; through Serve expect less.",
}

_WARNING = (
    "EMULATED: no GPU did any work in this search. The numbers below are predicted, not measured.",
    "What this file deploys is the real model; measure it before you rely on them.",
)


def serve_config(
    recommendation: Recommendation,
    *,
    name: str,
    import_path: str,
    arguments: Mapping[str, object],
    search_id: str,
    file_name: str = "serve.yaml",
    request_command: str = DEFAULT_REQUEST,
    emulated: bool = False,
) -> str:
    """A Serve config with one application, and comments that say where it comes from.

    Args:
        recommendation: What the search found; its sentence and numbers go into the comments.
        name: Of the application.
        import_path: `package.module:builder`, e.g. `TORCH_APP`.
        arguments: The builder's one argument: JSON values by name.
        search_id: Of the search that found it.
        file_name: Under which the text will be saved.
        request_command: A shell command that asks the application for one answer.
        emulated: Whether the numbers stem from emulated GPUs; what is deployed is the real thing.

    Raises:
        InputError: The import path names no builder, or an argument is no JSON value.
    """
    module, colon, builder = import_path.rpartition(":")
    if not (module and colon and builder):
        raise InputError(
            f"import_path must be package.module:builder for Serve, got {import_path!r}"
        )
    application = {
        "name": name,
        "route_prefix": "/",
        "import_path": import_path,
        "args": dict(arguments),
    }
    config: dict[str, Any] = {
        "http_options": {"host": HOST, "port": PORT},
        "applications": [application],
    }
    try:
        body = yaml.safe_dump(config, sort_keys=False, allow_unicode=True, width=_WIDTH)
    except yaml.YAMLError as error:
        raise InputError(f"an argument of {import_path} is no JSON value: {error}") from error
    lines = _header(
        recommendation,
        search_id=search_id,
        file_name=file_name,
        request_command=request_command,
        emulated=emulated,
    )
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + body


def write_export(path: Path, text: str) -> None:
    """Save what `serve_config` gave, whole or not at all.

    Raises:
        InputError: The file cannot be written.
    """
    write_text(path, text)


def _header(
    recommendation: Recommendation,
    *,
    search_id: str,
    file_name: str,
    request_command: str,
    emulated: bool,
) -> list[str]:
    rate = describe_count(recommendation.requests_per_second)
    measured = recommendation.chosen.measurement
    path = LoadPath.HANDLE.value if measured is None else measured.load_path
    price = (
        f"{recommendation.chosen.usd_per_hour:.4g} USD/h on {recommendation.chosen.instance_type}"
    )
    stands = recommendation.standing.value
    where = _PATHS.get(path, f"load path {path}.")
    return [
        f"Serve config found by falcon_ray, search {_one_line(search_id)}.",
        *(_WARNING if emulated else ()),
        *textwrap.wrap(_one_line(recommendation.sentence), _WIDTH),
        *(
            (f"Predicted, by emulation: {rate} requests/s for {price},", where)
            if emulated
            else (f"Measured: {rate} requests/s for {price} ({stands}),", where)
        ),
        "",
        f"Deploy here:        serve run {file_name}",
        f"On a running Ray:   serve deploy {file_name}",
        f"Ask for an answer:  {_one_line(request_command)}",
    ]


def _one_line(text: str) -> str:
    """The text without line breaks, which would end the comment."""
    return " ".join(text.split())
