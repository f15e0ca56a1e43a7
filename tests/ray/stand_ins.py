"""Programs that stand in for those that reach further than this machine.

moto invents public addresses that belong to somebody: nothing may connect to them. And packages
are not fetched from anywhere.
"""

import os
import zipfile
from pathlib import Path

import pytest

PROGRAM = """#!/bin/sh
echo "$(basename "$0") $*" >> {calls}
case "$*" in *"$(cat {failing})"*) exit 1;; esac
"""
# What packages of Python need at least.
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
BACKEND = """
import pathlib, zipfile
FILES = {files!r}
def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "falcon_ray-0.1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(wheel_directory, name), "w") as wheel:
        for file, text in FILES.items():
            wheel.writestr(file, text)
    return name
"""


class Machines:
    """Nodes that do what they are told and say nothing, reached by ssh and rsync.

    Args:
        directory: Where the programs are.
        patch: Puts them first on PATH.
    """

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._calls, self._failing = directory / "calls", directory / "failing"
        self.fail("nothing fails")
        programs = directory / "bin"
        programs.mkdir()
        for each in ("ssh", "rsync"):
            file = programs / each
            file.write_text(PROGRAM.format(calls=self._calls, failing=self._failing))
            file.chmod(0o755)
        patch.setenv("PATH", f"{programs}{os.pathsep}/usr/bin{os.pathsep}/bin")

    def fail(self, command: str) -> None:
        """From now on let commands fail in which this stands."""
        self._failing.write_text(command)

    @property
    def calls(self) -> str:
        """All that was asked of them."""
        return self._calls.read_text()


def offer_packages(directory: Path, patch: pytest.MonkeyPatch) -> None:
    """Give pip an installer for nodes, what builds wheels, and no index to look for others."""
    ours = _files("falcon_ray", "0.1.0")
    backend = {"hatchling/__init__.py": "", "hatchling/build.py": BACKEND.format(files=ours)}
    _write(directory / "hatchling-1.27.0-py3-none-any.whl", _files("hatchling", "1.27.0") | backend)
    _write(directory / "uv-0.13.8-py3-none-any.whl", _files("uv", "0.13.8"))
    patch.setenv("PIP_CONFIG_FILE", os.devnull)
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(directory))


def _files(name: str, version: str) -> dict[str, str]:
    folder = f"{name}-{version}.dist-info"
    return {
        f"{folder}/METADATA": METADATA.format(name=name, version=version),
        f"{folder}/WHEEL": WHEEL,
        f"{folder}/RECORD": "",
    }


def _write(wheel: Path, files: dict[str, str]) -> None:
    with zipfile.ZipFile(wheel, "w") as opened:
        for name, text in files.items():
            opened.writestr(name, text)
