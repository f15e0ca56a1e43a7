import pytest

from falcon_ray.knowledge.latency.served import ServedOffset, ServedOffsets


def test_nothing_served_changes_nothing() -> None:
    assert ServedOffsets([]).of("a") == ServedOffset(0.0, 1.0)


def test_one_batch_moves_its_own_model_by_its_part_of_the_variance() -> None:
    # Of 0.3^2 + 0.2^2 + 0.1^2 = 0.14, 0.13 belong to the device and the model.
    found = ServedOffsets([("a", 0.5)]).of("a")
    assert found.log_factor == pytest.approx(0.5 * 0.13 / 0.14)
    assert found.variance_left == pytest.approx(1 - 0.13 / 0.14)


def test_another_model_shares_what_the_device_shows() -> None:
    found = ServedOffsets([("a", 0.5)]).of("b")
    assert found.log_factor == pytest.approx(0.5 * 0.09 / 0.14)
    assert found.variance_left == pytest.approx(1 - 0.09**2 / 0.14 / 0.13)


def test_many_batches_of_many_models_settle_the_device() -> None:
    served = ServedOffsets([(str(i), 0.4) for i in range(30) for _ in range(3)])
    assert served.of("unseen").log_factor == pytest.approx(0.4, rel=0.05)
