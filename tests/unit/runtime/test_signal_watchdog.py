import signal
import subprocess
import sys

EXIT_CODE = 5
PRELUDE = f"""
import ctypes, os, signal, sys
from falcon_ray.runtime.signal_watchdog import ended_by_force

heard = []
signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))

def watched(after_s, last_words=lambda: "go on with: --resume"):
    return ended_by_force(
        signal.SIGTERM, after_s=after_s, last_words=last_words, exit_code={EXIT_CODE}
    )

def wait_deaf_to_signals():
    # A lock that its own thread holds already: the C library waits for ever, and goes on waiting
    # after a signal. ctypes lets go of the interpreter's lock meanwhile.
    library, lock = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    library.pthread_mutex_lock(lock)
    print("ready", flush=True)
    library.pthread_mutex_lock(lock)
"""


def run(script: str, *, signals: tuple[signal.Signals, ...] = ()) -> tuple[int, str, str]:
    """Exit code and both outputs of a process that gets signals once it has said "ready"."""
    with subprocess.Popen(
        [sys.executable, "-c", PRELUDE + script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        for each in signals:
            process.send_signal(each)
        out, err = process.communicate(timeout=60)
    return process.returncode, out, err


DEAF = """
with watched(0.05):
    wait_deaf_to_signals()
"""


def test_a_process_that_is_deaf_to_the_signal_is_ended_with_its_last_words() -> None:
    assert run(DEAF, signals=(signal.SIGTERM,)) == (EXIT_CODE, "", "go on with: --resume\n")


def test_another_signal_before_does_not_wake_it() -> None:
    script = "signal.signal(signal.SIGUSR1, lambda *_: None)" + DEAF
    code, _, err = run(script, signals=(signal.SIGUSR1, signal.SIGTERM))
    assert (code, err) == (EXIT_CODE, "go on with: --resume\n")


def test_last_words_that_cannot_be_said_do_not_keep_it_alive() -> None:
    script = """
with watched(0.05, last_words=lambda: 1 / 0):
    wait_deaf_to_signals()
"""
    code, _, _ = run(script, signals=(signal.SIGTERM,))
    assert code == EXIT_CODE


def test_a_block_that_is_left_in_time_goes_on_and_gives_the_signals_back() -> None:
    script = """
reading, writing = os.pipe()
os.set_blocking(writing, False)
signal.set_wakeup_fd(writing)
with watched(60):
    print("ready", flush=True)
    while not heard:
        pass
assert signal.set_wakeup_fd(-1) == writing
print("went on")
"""
    assert run(script, signals=(signal.SIGTERM,)) == (0, "went on\n", "")


def test_without_a_signal_nothing_happens() -> None:
    script = """
with watched(0):
    print("ready", flush=True)
print("went on")
"""
    assert run(script) == (0, "went on\n", "")
