import asyncio

import numpy as np
import pytest

from falcon_ray.runtime.load.core import FAILURE_PAUSE_S, Effort, LoadCore
from tests.unit.runtime.virtual_time import VirtualTimeLoop, run

ANSWER_S = 0.1

both_threads = pytest.mark.parametrize("shares_thread", [False, True])


async def answered() -> None:
    await asyncio.sleep(ANSWER_S)


async def never_answered() -> None:
    await asyncio.Event().wait()


@both_threads
def test_a_closed_loop_keeps_its_requests_in_flight(shares_thread: bool) -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        core = LoadCore(answered, clock=loop.time, shares_thread=shares_thread)
        core.start_closed_loop(4)
        await core.wait(10 * ANSWER_S + 0.05)
        rows, effort = core.take(), core.effort()
        await core.stop()
        assert rows.shape == (40, 4)  # 4 clients, 10 answers each
        np.testing.assert_allclose(rows[:, 2] - rows[:, 0], ANSWER_S)
        np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
        assert rows[:, 3].all()
        assert effort.in_flight == 4
        assert effort.oldest_s == pytest.approx(0.05)
        assert effort.wall_s == pytest.approx(1.05)
        assert not core.is_done

    run(work)


def test_what_was_taken_is_not_given_again() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        core = LoadCore(answered, clock=loop.time)
        core.start_closed_loop(1)
        await core.wait(3.5 * ANSWER_S)
        assert len(core.take()) == 3
        assert len(core.take()) == 0
        await core.wait(2 * ANSWER_S)
        assert len(core.take()) == 2
        await core.stop()

    run(work)


@both_threads
def test_latency_counts_from_when_a_request_was_due(shares_thread: bool) -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        free = asyncio.Lock()

        async def one_at_a_time() -> None:
            async with free:
                await asyncio.sleep(ANSWER_S)

        core = LoadCore(one_at_a_time, clock=loop.time, shares_thread=shares_thread)
        core.start_open_loop(np.array([0.5, 0.51, 0.52]))
        await core.wait(60)
        rows = core.take()
        # The answers come at 0.6, 0.7 and 0.8 s, and the session ends with the last of them.
        np.testing.assert_allclose(rows[:, 2] - rows[:, 0], [0.1, 0.19, 0.28], atol=1e-6)
        np.testing.assert_allclose(rows[:, 1], rows[:, 0], atol=1e-6)
        assert loop.time() == pytest.approx(0.8)
        assert core.is_done
        await core.stop()

    run(work)


@both_threads
def test_an_open_loop_without_any_answer_ends_by_its_time_out(shares_thread: bool) -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        failures: list[Exception] = []
        core = LoadCore(
            never_answered,
            on_failure=failures.append,
            clock=loop.time,
            timeout_s=5.0,
            shares_thread=shares_thread,
        )
        core.start_open_loop(np.array([0.0, 1.0]))
        await core.wait(3.0)
        effort = core.effort()
        assert (effort.in_flight, len(core.take())) == (2, 0)
        assert effort.oldest_s == pytest.approx(3.0)
        await core.wait(60)
        rows = core.take()
        np.testing.assert_allclose(rows[:, 2], [5.0, 6.0])
        assert not rows[:, 3].any()
        assert [str(each) for each in failures] == 2 * ["no answer within 5 s"]
        assert core.is_done
        await core.stop()

    run(work)


@both_threads
def test_a_closed_loop_without_any_answer_shows_how_long_it_waits(shares_thread: bool) -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        core = LoadCore(never_answered, clock=loop.time, shares_thread=shares_thread)
        core.start_closed_loop(3)
        await core.wait(40.0)
        effort = core.effort()
        await core.stop()
        assert len(core.take()) == 0
        assert effort.in_flight == 3
        assert effort.oldest_s == pytest.approx(40.0)
        assert core.effort().in_flight == 0

    run(work)


def test_an_open_loop_of_no_request_is_done_at_once() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        core = LoadCore(answered, clock=loop.time)
        core.start_open_loop(np.empty(0))
        await core.wait(60)
        assert core.is_done
        assert loop.time() == 0
        await core.stop()

    run(work)


def test_what_fails_at_once_is_recorded_and_not_sent_again_at_once() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        failures: list[Exception] = []

        async def refused() -> None:
            raise ConnectionError("nobody listens")

        core = LoadCore(refused, on_failure=failures.append, clock=loop.time)
        core.start_closed_loop(1)
        await core.wait(9.5 * FAILURE_PAUSE_S)
        rows = core.take()
        await core.stop()
        assert len(rows) == 10
        assert not rows[:, 3].any()
        assert {str(each) for each in failures} == {"nobody listens"}

    run(work)


def test_what_is_answered_without_waiting_lets_others_run() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        n_sent = 0

        async def at_once() -> None:
            nonlocal n_sent
            n_sent += 1
            if n_sent > 1000:
                await never_answered()

        core = LoadCore(at_once, clock=loop.time)
        core.start_closed_loop(1)
        for _ in range(4):
            await asyncio.sleep(0)
        assert 1 < n_sent < 1000
        await core.stop()

    run(work)


def test_a_schedule_that_is_far_behind_lets_others_run() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        core = LoadCore(answered, clock=loop.time)
        loop.block(1.0)
        core.start_open_loop(np.linspace(0.0, 0.9, 1000))
        for _ in range(4):
            await asyncio.sleep(0)
        assert 1 < core.effort().in_flight < 1000
        await core.stop()

    run(work)


def test_the_lag_of_an_open_loop_is_how_late_its_requests_are_sent() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        async def busy() -> None:
            loop.block(0.5)

        core = LoadCore(busy, clock=loop.time)
        core.start_open_loop(np.array([0.1, 0.2]))
        await core.wait(60)
        effort = core.effort()
        await core.stop()
        # The first keeps the process busy until 0.6 s, when the second is 0.4 s late.
        assert effort.n_due == 2
        assert effort.lag_s == pytest.approx(0.4)
        assert core.effort().n_due == 0

    run(work)


def test_a_closed_loop_that_is_kept_from_running_is_late() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        core = LoadCore(never_answered, clock=loop.time)
        core.start_closed_loop(1)
        await core.wait(0.99)
        assert core.effort().lag_s == pytest.approx(0.0)
        loop.block(2.0)
        await core.wait(0.001)
        # The heartbeat that was due at 1 s comes at 2.99 s.
        assert core.effort().lag_s == pytest.approx(1.99)
        await core.stop()

    run(work)


def test_inside_a_replica_the_model_s_computing_is_no_lag_of_the_load() -> None:
    async def work(loop: VirtualTimeLoop) -> None:
        async def model() -> None:
            while True:
                await asyncio.sleep(0.01)
                loop.block(0.5)

        computing = asyncio.ensure_future(model())
        core = LoadCore(answered, clock=loop.time, shares_thread=True)
        core.start_closed_loop(2)
        await core.wait(20.0)
        effort = core.effort()
        await core.stop()
        computing.cancel()
        # Half a second was blocked before every beat; the load's own steps took microseconds.
        assert effort.n_due >= 10
        assert effort.lag_s / effort.n_due < 0.05
        assert 0 < effort.cpu_s < 0.1 * effort.wall_s

    run(work)


def test_efforts_add_up_and_what_is_in_flight_is_the_later_one_s() -> None:
    first = Effort(lag_s=1.0, n_due=2, cpu_s=0.5, wall_s=4.0, in_flight=7, oldest_s=3.0)
    later = Effort(lag_s=2.0, n_due=3, cpu_s=0.25, wall_s=1.0, in_flight=5, oldest_s=0.5)
    assert first.then(later) == Effort(
        lag_s=3.0, n_due=5, cpu_s=0.75, wall_s=5.0, in_flight=5, oldest_s=0.5
    )
