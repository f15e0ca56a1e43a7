"""Where this machine keeps what it knows of a cluster, readable to its user alone.

    ~/.falcon_ray/clusters/NAME/journal.jsonl    what was made
    ~/.falcon_ray/clusters/NAME/key.pem          the private half of its key pair
    ~/.falcon_ray/clusters/NAME/token            its Ray token
    ~/.falcon_ray/clusters/.NAME.lock            which command works on it

FALCON_RAY_CLUSTERS names another place. Nothing is written before there is something to keep. The
module does not know what the files mean to AWS or to Ray.
"""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from cluster.state.journal import Journal
from cluster.state.lock import exclusive
from falcon_ray.errors import InputError

VARIABLE = "FALCON_RAY_CLUSTERS"


class StateDirectory:
    """The local state of one cluster.

    Args:
        root: Where the state of all clusters is.
        name: The cluster's.

    Raises:
        InputError: No cluster can be called so.
    """

    def __init__(self, root: Path, name: str) -> None:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,23}", name):
            raise InputError(
                f"a cluster cannot be called {name!r}; take lower case letters, digits and "
                "hyphens, at most 24"
            )
        self.name = name
        self.path = root / name
        self._lock_path = root / f".{name}.lock"
        self._depth = 0
        self._journal: Journal | None = None

    @classmethod
    def of(cls, name: str) -> "StateDirectory":
        """That of a cluster of this user."""
        root = os.environ.get(VARIABLE)
        return cls(Path(root) if root else Path.home() / ".falcon_ray" / "clusters", name)

    @property
    def journal(self) -> Journal:
        """What was made, as far as this machine knows."""
        if self._journal is None:
            self._journal = Journal(self.path / "journal.jsonl")
        return self._journal

    @property
    def private_key(self) -> Path:
        """Where the private half of the key pair is, once there is one."""
        return self.path / "key.pem"

    @property
    def token_file(self) -> Path:
        """Where the Ray token is, once there is one."""
        return self.path / "token"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other commands away from the cluster; whoever holds the lock may take it again.

        Raises:
            ClusterError: Another command works on it.
        """
        with ExitStack() as held:
            if self._depth == 0:
                self._make_root()
                held.enter_context(exclusive(self._lock_path, name=self.name))
                self._journal = None  # another command may have written since it was read
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1

    def prepare(self) -> None:
        """Make the directory, for its user alone."""
        self._make_root()
        self.path.mkdir(mode=0o700, exist_ok=True)
        self.path.chmod(0o700)

    def keep_secret(self, path: Path, secret: bytes) -> None:
        """Write a file of mode 0600 that is there as a whole or not at all."""
        unfinished = path.with_name(f".{path.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, secret)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        unfinished.replace(path)

    def remove(self) -> None:
        """Forget the cluster: nothing of it stands any more."""
        if self.path.exists():
            shutil.rmtree(self.path)
        self._journal = None

    def _make_root(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{self.path.parent} cannot be made: {error.strerror}; let {VARIABLE} name a "
                "directory that can"
            ) from None
