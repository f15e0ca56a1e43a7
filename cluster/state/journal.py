"""What was begun for a cluster and what came of it: one JSON line per event, on disk at once.

Before each call that changes the account its intent is written, after it the id. A command that
was killed in between can therefore be resumed, even while AWS does not show yet what it made. The
journal makes nothing and asks nobody; without it, things are still found by their tags.
"""

import datetime as dt
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.identity import Identity
from falcon_ray.errors import InputError


class Journal:
    """The journal in one file, which is made by its first event; read when this is made.

    Raises:
        InputError: The file is no journal.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._identity: Identity | None = None
        self._image_id: str | None = None
        self._intended: set[str] = set()
        self._made: dict[str, str] = {}
        for number, line in enumerate(_whole_lines(path), start=1):
            try:
                self._take_in(json.loads(line))
            except (KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"line {number} of {path} is no event of a cluster ({error}); move the file "
                    "away: whatever stands in the account is found by its tags"
                ) from None

    @property
    def identity(self) -> Identity | None:
        """The cluster that was begun; None where none was."""
        return self._identity

    @property
    def image_id(self) -> str | None:
        """The machine image that the cluster's nodes boot from, pinned when it was begun."""
        return self._image_id

    def id_of(self, what: str) -> str | None:
        """What was made, by its id; None where nothing is known of it."""
        return self._made.get(what)

    def may_exist(self, what: str) -> bool:
        """Whether it was made, or the command ended while it was being made."""
        return what in self._intended or what in self._made

    def begin(self, identity: Identity, *, image_id: str) -> None:
        """Note which cluster all that follows is for; noted again only where it differs."""
        if (identity, image_id) == (self._identity, self._image_id):
            return
        record = asdict(identity) | {"expires_at": identity.expires_at.isoformat()}
        self._append({"event": "begun", "identity": record, "image_id": image_id})

    def intend(self, what: str) -> None:
        """Note a call that is about to change the account."""
        self._append({"event": "intended", "what": what})

    def made(self, what: str, thing_id: str) -> None:
        """Note that something is there; what is known of already is not noted again."""
        if self._made.get(what) != thing_id or what in self._intended:
            self._append({"event": "made", "what": what, "id": thing_id})

    def _append(self, event: Mapping[str, Any]) -> None:
        is_new = not self._path.exists()
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            whole = sum(len(line) + 1 for line in _whole_lines(self._path))
            os.ftruncate(descriptor, whole)  # without the line that a killed command was writing
            os.pwrite(descriptor, json.dumps(event, sort_keys=True).encode() + b"\n", whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:
            _sync_directory(self._path.parent)
        self._take_in(event)

    def _take_in(self, event: Mapping[str, Any]) -> None:
        match event["event"]:
            case "begun":
                record = dict(event["identity"])
                record["expires_at"] = dt.datetime.fromisoformat(record["expires_at"])
                self._identity, self._image_id = Identity(**record), event["image_id"]
            case "intended":
                self._intended.add(event["what"])
            case "made":
                self._intended.discard(event["what"])
                self._made[event["what"]] = event["id"]
            case other:
                raise ValueError(f"unknown event {other!r}")


def _whole_lines(path: Path) -> list[bytes]:
    """All lines but a last one that was not finished."""
    try:
        return path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return []


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
