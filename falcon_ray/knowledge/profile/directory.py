"""Where the files of a profile lie: a local directory, or a prefix of an object store.

Both write a file whole or not at all. The module knows bytes and names, not profiles.
"""

import fcntl
import os
import re
import tempfile
from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import pyarrow as pa
from pyarrow import fs

from falcon_ray.errors import InputError

LOCK_NAME = ".lock"
CHECK_NAME = ".writable"


class ProfileDirectory(Protocol):
    """Named files in one place; `OSError` where the place does not let us."""

    @property
    def name(self) -> str:
        """The location, for messages and comparisons."""
        ...

    def read(self, file: str) -> bytes:
        """A file's content; `FileNotFoundError` where there is none."""
        ...

    def write(self, file: str, content: bytes) -> None:
        """Replace a file's content, whole or not at all."""
        ...

    def delete(self, file: str) -> None:
        """Delete a file that may be gone already."""
        ...

    def lock(self) -> AbstractContextManager[None]:
        """Keep other writers out, where the place can."""
        ...


class LocalDirectory:
    """A directory of a file system that renames atomically, with a lock among its writers."""

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().resolve()

    @property
    def name(self) -> str:
        """See `ProfileDirectory.name`."""
        return str(self._path)

    def read(self, file: str) -> bytes:
        """See `ProfileDirectory.read`."""
        return (self._path / file).read_bytes()

    def write(self, file: str, content: bytes) -> None:
        """See `ProfileDirectory.write`: synced to disk before and after the rename."""
        target = self._path / file
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_directory(target.parent)

    def delete(self, file: str) -> None:
        """See `ProfileDirectory.delete`."""
        (self._path / file).unlink(missing_ok=True)

    @contextmanager
    def lock(self) -> Generator[None]:
        """See `ProfileDirectory.lock`: the kernel gives it back if the process dies."""
        self._path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


class ObjectDirectory:
    """A prefix of an object store, where a put is atomic but nothing keeps two writers apart.

    Of two processes that add at the same moment one may be lost, so let one process write: the
    curve store's actor is one.

    Args:
        filesystem: The store.
        path: Bucket and prefix in it.
        name: What the user called it.
    """

    def __init__(self, filesystem: fs.FileSystem, path: str, name: str) -> None:
        self._filesystem = filesystem
        self._path = path.rstrip("/")
        self._name = name.rstrip("/")

    @property
    def name(self) -> str:
        """See `ProfileDirectory.name`."""
        return self._name

    def read(self, file: str) -> bytes:
        """See `ProfileDirectory.read`."""
        path = f"{self._path}/{file}"
        if self._filesystem.get_file_info(path).type is fs.FileType.NotFound:
            raise FileNotFoundError(path)
        with self._filesystem.open_input_file(path) as stream:
            return stream.read()

    def write(self, file: str, content: bytes) -> None:
        """See `ProfileDirectory.write`."""
        path = f"{self._path}/{file}"
        # A store of objects has no directories; a file system behind the same face has.
        self._filesystem.create_dir(path.rpartition("/")[0], recursive=True)
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def delete(self, file: str) -> None:
        """See `ProfileDirectory.delete`."""
        path = f"{self._path}/{file}"
        if self._filesystem.get_file_info(path).type is not fs.FileType.NotFound:
            self._filesystem.delete_file(path)

    def lock(self) -> AbstractContextManager[None]:
        """See `ProfileDirectory.lock`: there is none."""
        return nullcontext()


def open_directory(location: str | Path) -> ProfileDirectory:
    """The directory at a local path, a file:// or s3:// URI, or another one that pyarrow knows.

    Raises:
        InputError: The URI is none, or its store does not answer.
    """
    text = str(location)
    if not text:
        raise InputError("a profile needs a location: a directory, or s3://bucket/prefix")
    if text.startswith("file://"):
        return LocalDirectory(Path("/" + text.removeprefix("file://").lstrip("/")))
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:/", text):
        return LocalDirectory(Path(text))
    if "@" in text.partition("://")[2].partition("/")[0]:
        raise InputError(
            "a location must not hold keys, which would end in logs; give them by AWS_PROFILE, or "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    advice = "give a directory, or s3://bucket/prefix"
    with explained(text, "opened"):
        try:
            filesystem, path = fs.FileSystem.from_uri(text)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"{text} is no location of a profile ({first_line(error)}); {advice}"
            ) from None
    if not path.strip("/"):
        raise InputError(f"{text} is no location of a profile (it names no bucket); {advice}")
    return ObjectDirectory(filesystem, path, text)


@contextmanager
def explained(location: str, done: str) -> Generator[None]:
    """Raise `InputError` where the place of a profile does not let us do something.

    Args:
        location: As the user named it.
        done: What was to be done with it: "read", "written".
    """
    try:
        yield
    except OSError as error:
        advice = (
            "check the bucket, the network and the credentials (AWS_PROFILE, or AWS_ACCESS_KEY_ID "
            "and AWS_SECRET_ACCESS_KEY)"
            if location.startswith("s3://")
            else "check its permissions and the space left, or choose another location"
        )
        raise InputError(
            f"{location} cannot be {done}: {error.strerror or first_line(error)}; {advice}"
        ) from None


def first_line(error: Exception) -> str:
    """The first line of an error's message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
