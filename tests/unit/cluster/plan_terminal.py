"""`python -m cluster` run in this process, in front of an account at moto's."""

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cluster.clients import Clients
from cluster.entry_point import main
from cluster.spec_file import DEFAULT_AMI_PARAMETER, DEFAULT_FILE
from cluster.surroundings import Surroundings
from cluster.user_cache import UserCache
from tests.unit.cluster.plan_fakes import PLAN_AMI_PARAMETER

NOW = dt.datetime(2026, 12, 1, 12, tzinfo=dt.UTC)
HOME = "203.0.113.7/32"


@dataclass
class PlanTerminal:
    """What was typed and what came of it."""

    clients: Clients
    directory: Path
    capsys: pytest.CaptureFixture[str]
    answer: bool = False
    questions: list[str] = field(default_factory=list)
    exit_code: int = -1
    out: str = ""
    err: str = ""

    def __post_init__(self) -> None:
        text = DEFAULT_FILE.read_text("utf-8")
        self.file = self.directory / "cluster.yaml"
        self.file.write_text(text.replace(DEFAULT_AMI_PARAMETER, PLAN_AMI_PARAMETER))

    def run(self, *arguments: str | Path, **surroundings: Callable[..., Any]) -> None:
        given: dict[str, Any] = {
            "connect": lambda *_: self.clients,
            "now": lambda: NOW,
            "find_own_address": lambda: HOME,
            "confirm": self._confirm,
            "cache": lambda: UserCache(self.directory),
        }
        with pytest.raises(SystemExit) as caught:
            main([str(each) for each in arguments], Surroundings(**{**given, **surroundings}))
        assert isinstance(caught.value.code, int)
        self.exit_code = caught.value.code
        self.out, self.err = self.capsys.readouterr()

    def fails(self, *arguments: str | Path, code: int, **surroundings: Callable[..., Any]) -> str:
        """The one line that it ends with."""
        self.run(*arguments, **surroundings)
        assert self.exit_code == code, self.err
        (line,) = self.err.splitlines()
        return line

    def _confirm(self, question: str) -> bool:
        self.questions.append(question)
        return self.answer

    def change(self, old: str, new: str) -> None:
        """Edit the cluster's file."""
        text = self.file.read_text()
        assert old in text
        self.file.write_text(text.replace(old, new))
