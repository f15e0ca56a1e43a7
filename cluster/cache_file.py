"""Records in a JSON file of the user's cache directory, replaced whole or not at all.

The module does not know what the records are of.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from falcon_ray.errors import InputError

_VERSION = 1
_T = TypeVar("_T")


def default_directory() -> Path:
    """That of falcon_ray in the user's cache directory."""
    # The XDG base directory specification calls a relative path invalid.
    given = Path(os.environ.get("XDG_CACHE_HOME") or "")
    cache = given if given.is_absolute() else Path.home() / ".cache"
    return cache / "falcon_ray"


def read(path: Path, record: Callable[[Mapping[str, Any]], _T]) -> list[_T]:
    """All records; none where there is no file.

    Args:
        path: Of the file.
        record: Makes one of its JSON values; KeyError, TypeError and ValueError say that they
            do not fit.

    Raises:
        InputError: The file is damaged.
    """
    try:
        return _records(json.loads(path.read_text(encoding="utf-8")), record)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} cannot be read as a cache ({error}); delete it") from None


def write(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Replace all records.

    Raises:
        InputError: The file cannot be written.
    """
    text = json.dumps({"version": _VERSION, "records": list(records)}, indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; set XDG_CACHE_HOME to a directory that "
            "can"
        ) from None


def _records(content: Any, record: Callable[[Mapping[str, Any]], _T]) -> list[_T]:  # noqa: ANN401 - as it was read
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']!r}")
    return [record(each) for each in content["records"]]


def _replace(path: Path, text: str) -> None:
    """By way of a file beside it, so that no reader and no kill ever sees half of one."""
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
