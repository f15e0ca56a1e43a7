import pytest

from falcon_ray.runtime.serve_messages import cause, died_silently

# As Ray 2.60 says it, for one constructor that raises while it handles another error.
TRACEBACK = """\
The deployment failed to start 1 times in a row. This may be due to a problem with its \
constructor or initial health check failing. See controller logs for details. Error:
ray::ServeReplica:falcon-a:TorchReplica.initialize_and_get_metadata() (pid=41, ip=10.0.0.1)
  File "/venv/ray/serve/_private/replica.py", line 1124, in initialize
    raise RuntimeError(traceback.format_exc()) from None
RuntimeError: Traceback (most recent call last):
  File "/venv/ray/serve/_private/replica.py", line 1100, in initialize
    await self._user_callable_wrapper.initialize_callable()
  File "/home/me/tiny.py", line 7, in make
    raise {raised}
{error}
"""


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        ("ValueError", "ValueError: no kernel of size 7"),
        ("NoKernel(size)", "my_models.errors.NoKernelException: no kernel of size 7"),
        ("KeyError(name)", "KeyError: 'int8'"),
        ("SystemExit", "SystemExit"),
        ("OutOfLuck()", "my_models.errors.OutOfLuck: no kernel of size 7"),
    ],
)
def test_the_cause_is_the_error_at_the_end_of_the_traceback(raised: str, error: str) -> None:
    assert cause(TRACEBACK.format(raised=raised, error=error)) == error


def test_the_last_of_several_errors_is_the_cause() -> None:
    first = (
        "KeyError: 'int8'\n\nDuring handling of the above exception, another exception occurred:"
    )
    message = TRACEBACK.format(raised="KeyError", error=f"{first}\n\nValueError: no such dtype")
    assert cause(message) == "ValueError: no such dtype"


def test_what_follows_the_error_is_left_out() -> None:
    message = TRACEBACK.format(raised="ValueError", error="ValueError: no kernel\n\nSee the logs.")
    assert cause(message) == "ValueError: no kernel"


@pytest.mark.parametrize(
    "error",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "MemoryError",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: out of memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:127] CPUAllocator: can't allocate memory",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 8.00 GiB for an array",
        "RuntimeError: std::bad_alloc",
        "OSError: [Errno 12] Cannot allocate memory",
    ],
)
def test_memory_that_ran_out_is_said_first(error: str) -> None:
    assert cause(TRACEBACK.format(raised="MemoryError", error=error)) == f"out of memory ({error})"


def test_a_worker_that_was_killed_for_memory_is_out_of_memory() -> None:
    message = "Task was killed due to the node running out of memory.\nMemory on the node was 1 GiB"
    assert cause(message) == "out of memory (Memory on the node was 1 GiB)"


def test_without_an_error_the_last_line_is_the_cause() -> None:
    assert cause("The replica was lost.\n\n  It did not come back.\n") == "It did not come back."


@pytest.mark.parametrize("message", ["", "\n  \n"])
def test_no_message_is_no_reason(message: str) -> None:
    assert cause(message) == "Serve gave no reason"


# As Ray 2.60 says it when the process of a constructor ends, and when its node does.
NO_TRACEBACK = """\
Failed to update the deployments ['TorchReplica'].
The deployment failed to start 1 times in a row. This may be due to a problem with its \
constructor or initial health check failing. See controller logs for details. Error:
{error}
"""


@pytest.mark.parametrize(
    "error",
    [
        "ActorDiedError()",
        "ActorUnavailableError('The actor is temporarily unavailable: RPC error', b'y')",
    ],
)
def test_a_process_that_ended_without_a_traceback_died_silently(error: str) -> None:
    message = NO_TRACEBACK.format(error=error)
    assert died_silently(message)
    assert cause(message) == "its process ended without an error: it exited, crashed or was killed"


def test_a_death_that_a_traceback_explains_is_not_silent() -> None:
    message = TRACEBACK.format(raised="ValueError", error="ValueError: no kernel of size 7")
    assert not died_silently(message)
    assert not died_silently(f"{message}\nActorDiedError()")


def test_a_worker_that_ray_killed_for_memory_did_not_die_silently() -> None:
    message = NO_TRACEBACK.format(error="ActorDiedError('killed: the node ran out of memory')")
    assert not died_silently(message)


def test_no_message_is_no_death() -> None:
    assert not died_silently("")
