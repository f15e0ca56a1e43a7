"""Words of a process that ends without being able to say any; each in a process of its own."""

import signal
import subprocess
import sys

import pytest

PRELUDE = """
import os, signal, subprocess, sys
from falcon_ray.runtime.last_words import last_words
"""


def run(script: str) -> tuple[int, str]:
    """Exit code and standard error of a process, once all that wrote to it have ended."""
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stderr


@pytest.mark.parametrize(
    ("end", "code"),
    [("os._exit(1)", 1), ("os.kill(os.getpid(), signal.SIGKILL)", -signal.SIGKILL)],
)
def test_a_process_that_ends_inside_the_block_has_its_words_said(end: str, code: int) -> None:
    script = f"""
with last_words("go on with: 'a $HOME' %s"):
    {end}
"""
    assert run(script) == (code, "go on with: 'a $HOME' %s\n")


def test_a_child_that_lives_on_does_not_keep_them_from_being_said() -> None:
    script = """
with last_words("go on"):
    # Its end would be waited for, if it wrote to the same standard error.
    child = subprocess.Popen([sys.executable, "-c", "input()"], stderr=subprocess.DEVNULL)
    os._exit(1)
"""
    assert run(script) == (1, "go on\n")


@pytest.mark.parametrize("leave", ["pass", "raise SystemExit(3)"])
def test_who_leaves_the_block_speaks_for_itself(leave: str) -> None:
    script = f"""
with last_words("go on"):
    {leave}
"""
    code, said = run(script)
    assert (code in {0, 3}, said) == (True, "")


def test_words_that_are_not_needed_any_more_are_not_said() -> None:
    script = """
with last_words("go on") as others_were_said:
    others_were_said()
    os._exit(5)
"""
    assert run(script) == (5, "")
