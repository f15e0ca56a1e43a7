"""The queue of a known service against tables worked out by hand."""

import numpy as np
import pytest

from falcon_ray.studies.measurement.queueing import closed_loop, serve_arrivals


def test_a_batch_takes_all_that_wait_when_the_server_is_free() -> None:
    # The first is served alone from 0 to 1; the next three came meanwhile, two of them fit from
    # 1 to 2, the last one is served from 2 to 3.
    served = serve_arrivals(np.array([0.0, 0.2, 0.4, 0.6]), [1.0] * 4, batch_size=2)
    assert served.done_s.tolist() == [1.0, 2.0, 2.0, 3.0]
    assert served.n_batches == 3


def test_an_idle_server_waits_for_the_next_request() -> None:
    served = serve_arrivals(np.array([0.0, 5.0]), [1.0, 1.0], batch_size=4, free_s=0.5)
    assert served.done_s.tolist() == [1.5, 6.0]


def test_nothing_is_served_where_nothing_arrives() -> None:
    assert serve_arrivals(np.empty(0), [], batch_size=4).done_s.size == 0


def test_with_two_batches_in_flight_each_waits_for_the_other_one() -> None:
    rounds = closed_loop(np.array([1.0, 2.0, 4.0]), concurrency=4, batch_size=2, start_s=10.0)
    assert rounds.done_s.tolist() == [11.0, 11.0, 13.0, 13.0, 17.0, 17.0]
    # The third batch serves the clients of the first one again, who sent when it was done.
    assert rounds.sent_s.tolist() == [10.0, 10.0, 10.0, 10.0, 11.0, 11.0]


def test_a_lone_client_waits_for_nobody() -> None:
    rounds = closed_loop(np.array([1.0, 2.0]), concurrency=1, batch_size=8)
    assert (rounds.done_s - rounds.sent_s).tolist() == [1.0, 2.0]


def test_the_last_cohort_is_as_large_as_clients_are_left() -> None:
    rounds = closed_loop(np.array([1.0, 1.0, 1.0]), concurrency=3, batch_size=2)
    assert rounds.done_s.tolist() == pytest.approx([1.0, 1.0, 2.0, 3.0, 3.0])
