import numpy as np
import pytest

from falcon_ray.knowledge.latency.latencies import Latencies
from falcon_ray.knowledge.llm.predictor import LlmPredictor
from falcon_ray.knowledge.profile.files import packaged_profile
from falcon_ray.space.catalogue import Catalogue
from tests.unit.knowledge.known import one_layer

PROFILE = packaged_profile()
LATENCIES = Latencies(PROFILE, Catalogue.packaged())
ON_DAY_ONE = ("T4", "V100-16G", "A10G", "A100-40G", "L4", "L40S", "H100", "H200", "B200")


@pytest.mark.parametrize("gpu", ON_DAY_ONE)
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_every_gpu_of_day_one_is_predicted_with_an_error_bar(gpu: str, dtype: str) -> None:
    batches = np.array([1.0, 64.0])
    found = LATENCIES.on(gpu, dtype).predict(one_layer().calls(batches, dtype=dtype))
    # A layer of 4 MB of weights takes at least what reading them takes, 0.3 to 13 us on these.
    ideal_s = 2e6 / 8e12
    assert (np.exp(found.log_seconds) > ideal_s).all()
    assert (np.exp(found.log_seconds) < 0.01).all()
    assert ((found.sd > 0.1) & (found.sd < 1.5)).all()


def test_large_products_are_faster_on_faster_gpus_and_in_half_precision() -> None:
    batch = np.array([65536.0])

    def seconds(gpu: str, dtype: str) -> float:
        calls = one_layer().calls(batch, dtype=dtype)
        return float(np.exp(LATENCIES.on(gpu, dtype).predict(calls).log_seconds[0]))

    assert seconds("H100", "bfloat16") < seconds("A100-40G", "bfloat16") < seconds("T4", "float16")
    assert seconds("T4", "float16") < seconds("T4", "float32")


def test_every_source_says_its_licence_and_origin() -> None:
    assert PROFILE.sources
    for source in PROFILE.sources.values():
        assert source.licence
        assert source.url.startswith("https://")
        assert source.sha256 is not None


def test_no_measurement_of_others_is_shipped() -> None:
    assert PROFILE.operators.num_rows == 0
    assert PROFILE.models.num_rows == 0


def test_language_models_can_be_predicted_on_every_engine_that_was_measured() -> None:
    assert set(LlmPredictor(PROFILE.constants()).engines) == {"sglang", "trtllm", "vllm"}
