"""Ending a process whose cluster is gone; each in a process of its own."""

import subprocess
import sys

EXIT_CODE = 4
PRELUDE = f"""
import itertools, threading
from falcon_ray.runtime.cluster_watchdog import ended_with_cluster

def watched(answers, last_words=lambda: "the cluster is gone"):
    seconds = itertools.count()
    return ended_with_cluster(
        answers,
        after_s=2,
        last_words=last_words,
        exit_code={EXIT_CODE},
        every_s=0.001,
        clock=lambda: next(seconds),  # a second passes whenever somebody looks
    )
"""


def run(script: str) -> tuple[int, str, str]:
    """Exit code and both outputs of a process."""
    process = subprocess.run(
        [sys.executable, "-c", PRELUDE + script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return process.returncode, process.stdout, process.stderr


def test_a_process_whose_cluster_is_gone_ends_with_last_words() -> None:
    script = """
with watched(lambda: False):
    threading.Event().wait()
"""
    assert run(script) == (EXIT_CODE, "", "the cluster is gone\n")


def test_last_words_that_cannot_be_said_do_not_keep_it_alive() -> None:
    script = """
with watched(lambda: False, last_words=lambda: 1 / 0):
    threading.Event().wait()
"""
    code, _, _ = run(script)
    assert code == EXIT_CODE


def test_a_cluster_that_answers_now_and_then_is_waited_for() -> None:
    script = """
asked = threading.Semaphore(0)
answers = iter([True, False] * 50)

def answer():
    asked.release()
    return next(answers, True)

with watched(answer):
    for _ in range(60):
        asked.acquire()
print("went on")
"""
    assert run(script) == (0, "went on\n", "")


def test_who_has_left_is_not_ended() -> None:
    script = """
with watched(lambda: False):
    pass
print("went on")
"""
    assert run(script) == (0, "went on\n", "")
