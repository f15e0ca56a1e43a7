"""Programs that play Ray's launcher, pip, ssh and rsync, for whatever processes a test starts."""

import os
import sys
from pathlib import Path

import pytest

HEAD = "203.0.113.99"
_RAY = """
import sys
print({head!r} if sys.argv[1] == "get-head-ip" else "done")
"""
_PIP = """
import pathlib, sys
given = sys.argv[1:]
name = "falcon_ray-0-py3-none-any.whl" if "wheel" in given else "uv-0-py3-none-any.whl"
option = "--wheel-dir" if "wheel" in given else "--dest"
(pathlib.Path(given[given.index(option) + 1]) / name).write_text("a wheel")
"""


def stand_ins(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put them first on the paths of programs and modules."""
    modules = {
        "ray/__init__.py": "",
        "ray/scripts/__init__.py": "",
        "ray/scripts/scripts.py": _RAY.format(head=HEAD),
        "pip/__init__.py": "",
        "pip/__main__.py": _PIP,
    }
    for name, text in modules.items():
        file = directory / "modules" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    programs = directory / "bin"
    programs.mkdir()
    for each in ("ssh", "rsync"):
        (programs / each).write_text("#!/bin/sh\nexit 1\n")
        (programs / each).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{Path(sys.executable).parent}")
    monkeypatch.setenv("PYTHONPATH", str(directory / "modules"))
