"""The time of a model on a device that a profile or the catalogue knows: seconds and their error.

Predictors, each where its knowledge is there: nearest profiled shapes, operator by operator;
constants per family that were fitted on this device; for want of both, shapes and constants of
other devices, scaled by this one's facts. The module brings them together, bridges settings that
nobody measured (numbers of threads, shares of a GPU) and says how trials deviated from what was
predicted. It reads no files and knows no configurations.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from falcon_ray.errors import InputError, UnknownDeviceError
from falcon_ray.knowledge.device import Device, DeviceKind
from falcon_ray.knowledge.latency.device_knowledge import DeviceKnowledge, device_knowledge
from falcon_ray.knowledge.latency.estimates import LatencyEstimate, between, combined, scaled
from falcon_ray.knowledge.latency.profile_view import SERVED, ProfileView
from falcon_ray.knowledge.latency.served import ServedOffset, ServedOffsets
from falcon_ray.knowledge.latency.setting import Setting
from falcon_ray.knowledge.operators.operator import FamilyCalls
from falcon_ray.knowledge.profile.decompositions import fingerprint
from falcon_ray.knowledge.profile.profile import Profile
from falcon_ray.space.catalogue import Catalogue, did_you_mean
from falcon_ray.space.configuration import FloatArray

_INTERPOLATED_THREADS_SD = 0.05
_DOUBLED_THREADS_SD = 0.2
"""Per doubling beyond the numbers of threads that were measured."""
_ASSUMED_SPEED_UP = 0.6
"""Assumed share of an ideal speed-up, where one number of threads was measured."""
SERVED_DTYPES = ("float32", "bfloat16", "float16")
_OTHER_DTYPE_SD = 0.35
"""Where another dtype stands in for one that nobody measured."""
_OTHER_CPU_DTYPE_SD = 0.8
"""On a CPU, where a smaller dtype may as well be much slower."""
_HALVED_SHARE_SD = 0.2
"""Per halving of a GPU's share: nobody has published how time grows."""


class Latencies:
    """What a profile says about the time of models, on every device that it or the catalogue has.

    Args:
        profile: Measurements and constants.
        catalogue: Facts of GPUs.
    """

    def __init__(self, profile: Profile, catalogue: Catalogue) -> None:
        self._view = ProfileView(profile, catalogue)
        self._catalogue = catalogue
        self._on: dict[tuple[str, str], DeviceLatency] = {}
        self._served: dict[str, ServedOffsets] = {}

    def device(self, name: str) -> Device:
        """Facts of a device by its name in the profile, in the catalogue, or Ray's.

        Of several cards that share Ray's name, one that was measured is meant, else the smallest.

        Raises:
            UnknownDeviceError: Neither has it.
        """
        known = self._view.devices.get(name)
        if known is not None:
            return known
        alike = [each.gpu_type for each in self._catalogue.gpus if each.accelerator_type == name]
        measured = [each for each in alike if each in self._view.measured_devices]
        try:
            return Device.of_gpu(self._catalogue.gpu((measured or [name])[0]))
        except InputError:
            hint = did_you_mean(name, self._view.devices)
            raise UnknownDeviceError(
                f"nothing is known about the device {name!r}{hint}: no facts in "
                "falcon_ray/data/gpus.csv and no profile; run falcon-ray profile on it, or add a "
                "row of facts"
            ) from None

    def on(self, device: str, dtype: str) -> "DeviceLatency":
        """The predictors of one device and dtype.

        Raises:
            UnknownDeviceError: Nothing is known about the device.
        """
        key = (device, dtype)
        if key not in self._on:
            facts = self.device(device)
            self._on[key] = DeviceLatency(device_knowledge(self._view, facts, dtype))
        return self._on[key]

    def served(self, device: str, model: str) -> ServedOffset:
        """How a model's batches in trials deviate from these predictions, by what trials showed.

        Args:
            device: What serves it.
            model: Its key in profiles.

        Raises:
            UnknownDeviceError: Nothing is known about the device.
        """
        name = self.device(device).name
        if name not in self._served:
            self._served[name] = ServedOffsets(list(self._served_residuals(name)))
        return self._served[name].of(fingerprint(model))

    def _served_residuals(self, device: str) -> Iterator[tuple[str, float]]:
        """Fingerprint and log of measured over predicted of every batch that a trial measured."""
        for dtype in SERVED_DTYPES:
            for row in self._view.rows("models", device, dtype, mode=SERVED).to_pylist():
                decomposition = self._view.decompositions.get(row["model"])
                predictor = self.on(device, dtype)
                # What is wrong with a stand-in says nothing of the model or the device.
                if decomposition is None or predictor.is_stand_in:
                    continue
                calls = decomposition.calls(np.array([1.0 * row["batch_size"]]), dtype=dtype)
                found = predictor.predict(calls, threads=row["threads"], share=row["share"])
                measured = float(np.log(row["latency_us"] / 1e6))
                yield fingerprint(row["model"]), measured - float(found.log_seconds[0])


class DeviceLatency:
    """Predicts on one device in one dtype; see `Latencies.on`."""

    def __init__(self, knowledge: DeviceKnowledge) -> None:
        self._knowledge = knowledge

    @property
    def device(self) -> Device:
        """Its facts."""
        return self._knowledge.device

    def check_known(self) -> None:
        """Make sure that there is something to predict from.

        Raises:
            UnknownDeviceError: Neither measurements nor constants say anything about the device.
        """
        if not self._knowledge.settings:
            raise UnknownDeviceError(
                f"nothing is known about {self.device.name} in {self._knowledge.dtype}: no "
                "measurements and no fitted constants; run falcon-ray profile there"
            )

    def predict(
        self, calls: Sequence[FamilyCalls], *, threads: int = 0, share: float = 1.0
    ) -> LatencyEstimate:
        """Log seconds of one forward pass at each of the b batch sizes of the calls.

        Args:
            calls: `Decomposition.calls` in `traffic_dtype`.
            threads: Of a CPU; ignored on a GPU.
            share: Of a GPU's compute units; ignored on a CPU.

        Raises:
            UnknownDeviceError: Neither measurements nor constants say anything about it.
        """
        self.check_known()
        on_cpu = self.device.kind is DeviceKind.CPU
        found = self._at_threads(calls, threads) if on_cpu else self._at_share(calls, share)
        if not self.is_stand_in:
            return found
        dtype, measured = self._knowledge.dtype, self._knowledge.measured_dtype
        warning = f"nobody measured {self.device.name} in {dtype}; {measured} stands in"
        extra_sd = _OTHER_CPU_DTYPE_SD if on_cpu else _OTHER_DTYPE_SD
        wider = scaled(found, log_factor=0.0, extra_sd=extra_sd)
        return replace(wider, warnings=(*wider.warnings, warning))

    @property
    def is_stand_in(self) -> bool:
        """Whether another dtype's measurements stand in for this one's."""
        return self._knowledge.dtype != self._knowledge.measured_dtype

    @property
    def traffic_dtype(self) -> str:
        """The dtype whose bytes to ask for: no CPU is expected to gain by one nobody measured."""
        on_cpu = self.device.kind is DeviceKind.CPU
        return self._knowledge.measured_dtype if on_cpu else self._knowledge.dtype

    @property
    def measured_settings(self) -> FloatArray:
        """Numbers of threads of a CPU, or shares of a GPU, that something is known for; sorted."""
        return np.array(sorted(self._settings))

    @cached_property
    def _settings(self) -> Mapping[float, Setting]:
        """By threads on a CPU, by share on a GPU."""
        on_cpu = self.device.kind is DeviceKind.CPU
        return {
            float(each.threads if on_cpu else each.share): each for each in self._knowledge.settings
        }

    def _estimate(self, setting: Setting, calls: Sequence[FamilyCalls]) -> LatencyEstimate:
        found = combined(setting.estimates(calls))
        if setting.is_measured:
            return found
        warning = (
            f"nobody measured {self.device.name} in {self._knowledge.measured_dtype}; constants of "
            "other devices stand in, scaled by facts"
        )
        return replace(found, warnings=(*found.warnings, warning))

    def _at_threads(self, calls: Sequence[FamilyCalls], threads: int) -> LatencyEstimate:
        settings = self._settings
        if threads in settings:
            return self._estimate(settings[threads], calls)
        measured = np.array(sorted(settings))
        place, log_threads = np.log2(measured), float(np.log2(max(threads, 1)))
        outside = max(place[0] - log_threads, log_threads - place[-1], 0.0)
        extra_sd = _INTERPOLATED_THREADS_SD + _DOUBLED_THREADS_SD * outside
        if len(measured) == 1:
            return scaled(
                self._estimate(settings[measured[0]], calls),
                log_factor=-_ASSUMED_SPEED_UP * np.log(2) * (log_threads - place[0]),
                extra_sd=extra_sd,
            )
        right = int(np.clip(np.searchsorted(place, log_threads), 1, len(place) - 1))
        low, high = (settings[each] for each in measured[right - 1 : right + 1])
        position = (log_threads - place[right - 1]) / (place[right] - place[right - 1])
        return between(
            self._estimate(low, calls),
            self._estimate(high, calls),
            position=float(position),
            extra_sd=extra_sd,
        )

    def _at_share(self, calls: Sequence[FamilyCalls], share: float) -> LatencyEstimate:
        """Of a share that nobody measured, time in proportion to what is left away."""
        settings = self._settings
        if share in settings:
            return self._estimate(settings[share], calls)
        nearest = min(settings, key=lambda each: abs(np.log(each / share)))
        log_factor = float(np.log(nearest / share))
        return scaled(
            self._estimate(settings[nearest], calls),
            log_factor=log_factor,
            extra_sd=_HALVED_SHARE_SD * abs(log_factor) / float(np.log(2)),
        )
