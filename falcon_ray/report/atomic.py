"""Write a file whole or not at all, so that no reader and no kill ever sees half of one."""

import os
import tempfile
from pathlib import Path

from falcon_ray.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Replace a file's content by way of a temporary file beside it, synced before the rename.

    A symbolic link is followed. Everybody may read the file.

    Raises:
        InputError: The file cannot be written.
    """
    target = path.resolve()
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written: {error.strerror}; choose another path"
        ) from None
