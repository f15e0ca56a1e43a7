"""What is made of NVML's answers, by fakes of it."""

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from falcon_ray.runtime.monitors.nvml_monitor import GpuUsage, GpuWatch, open_gpus, open_nvml
from tests.unit.runtime.gpus import GIB, FakeGpu, FakeNvml


def _watch(*gpus: FakeGpu, pids: tuple[int, ...], opened: Mapping[int, set[int]]) -> GpuWatch:
    return GpuWatch(FakeNvml(*gpus), pids, open_gpus=lambda pid: frozenset(opened.get(pid, set())))


def _usage(watch: GpuWatch) -> GpuUsage:
    usage = watch.usage()
    assert usage is not None
    return usage


def test_memory_is_the_peak_of_the_largest_process() -> None:
    gpu = FakeGpu("GPU-a", used=9 * GIB, processes={1: 2 * GIB, 2: 3 * GIB, 77: 4 * GIB})
    watch = _watch(gpu, pids=(1, 2), opened={})
    watch.sample()
    gpu.processes = {1: 1 * GIB, 2: 1 * GIB}
    watch.sample()
    assert _usage(watch).memory_bytes == 3 * GIB


def test_a_process_on_two_gpus_takes_the_sum() -> None:
    gpus = [FakeGpu(f"GPU-{n}", n, processes={1: (n + 1) * GIB}) for n in range(2)]
    watch = _watch(*gpus, pids=(1,), opened={})
    watch.sample()
    assert (_usage(watch).memory_bytes, _usage(watch).n_gpus) == (3 * GIB, 2)


def test_where_processes_are_hidden_all_that_is_used_counts() -> None:
    # Another process namespace: the driver lists ids that mean nothing here.
    used = FakeGpu("GPU-a", 0, used=5 * GIB, processes={40001: 5 * GIB})
    other = FakeGpu("GPU-b", 1, used=7 * GIB)
    watch = _watch(used, other, pids=(1,), opened={1: {0}})
    watch.sample()
    assert (_usage(watch).memory_bytes, _usage(watch).n_gpus) == (5 * GIB, 1)


def test_a_listed_process_is_charged_only_where_it_is_listed() -> None:
    # CUDA opens the files of GPUs that it does not compute on.
    own = FakeGpu("GPU-a", 0, used=5 * GIB, processes={1: 2 * GIB})
    other = FakeGpu("GPU-b", 1, used=7 * GIB)
    watch = _watch(own, other, pids=(1,), opened={1: {0, 1}})
    watch.sample()
    assert (_usage(watch).memory_bytes, _usage(watch).n_gpus) == (2 * GIB, 1)


def test_utilisation_is_the_mean_and_power_adds_up_over_gpus() -> None:
    first = FakeGpu("GPU-a", 0, processes={1: GIB}, utilization=100.0, power=300.0)
    second = FakeGpu("GPU-b", 1, processes={2: GIB}, utilization=50.0, power=90.0)
    watch = _watch(first, second, pids=(1, 2), opened={})
    watch.sample()
    first.utilization, first.power = 80.0, 200.0
    watch.sample()
    usage = _usage(watch)
    assert usage.utilization_pct == pytest.approx((100 + 50 + 80 + 50) / 4)
    assert usage.power_w == pytest.approx((300 + 200) / 2 + 90)


def test_a_gpu_that_keeps_to_itself_leaves_gaps() -> None:
    watch = _watch(FakeGpu("GPU-a", used=None, processes={1: None}), pids=(1,), opened={})
    watch.sample()
    assert watch.usage() == GpuUsage(1, None, None, None)


def test_processes_without_a_gpu_are_not_watched() -> None:
    watch = _watch(FakeGpu("GPU-a", used=GIB, processes={99: GIB}), pids=(1,), opened={})
    watch.sample()
    assert watch.usage() is None


def test_open_device_files_tell_the_gpus_of_a_process(tmp_path: Path) -> None:
    files = tmp_path / "7" / "fd"
    files.mkdir(parents=True)
    for number, target in enumerate(
        ["/dev/nvidia0", "/dev/nvidia12", "/dev/nvidiactl", "/dev/nvidia-uvm", "socket:[1]"]
    ):
        (files / str(number)).symlink_to(target)
    assert open_gpus(7, proc=tmp_path) == {0, 12}
    assert open_gpus(8, proc=tmp_path) == frozenset()


def test_without_the_library_nothing_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # import raises ImportError
    assert open_nvml() is None


@pytest.mark.skipif(
    Path("/proc/driver/nvidia").exists(), reason="needs a machine without an NVIDIA driver"
)
def test_without_a_driver_nothing_is_watched() -> None:
    pytest.importorskip("pynvml")
    assert open_nvml() is None
