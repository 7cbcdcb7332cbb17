# SPDX-License-Identifier: Apache-2.0
"""Measures each step of a pipeline's own loop: its seconds, and the rows that its network computes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from sd_runtime.engine.device import Device

_NETWORKS = ("unet", "transformer", "transformer_2")  # two transformers share the steps of one image


class StepTimer:
    """Measures from the first call of the network in a step to the step's callback.

    Text encoding before the first step and decoding after the last step are not part of a step. For a pipeline without
    a network of a known name, nothing is measured.
    """

    def __init__(self, device: Device, report: Callable[[int, float], None]) -> None:
        """Create a timer for the steps of one image.

        Args:
            device: the device that computes the image.
            report: receives the rows of a step, which are two with guidance, and its seconds.
        """
        self._device = device
        self._report = report
        self._rows: list[int] = []  # of the calls in this step
        self._stop: Callable[[], None] | None = None

    @contextmanager
    def watching(self, pipeline: Any) -> Iterator[None]:
        """Measure the steps of the pipeline's call within this block."""
        networks = [getattr(pipeline, name, None) for name in _NETWORKS]
        hooks = [
            network.register_forward_pre_hook(self._called, with_kwargs=True)
            for network in networks
            if isinstance(network, torch.nn.Module)
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def end_step(self) -> None:
        """Report the step, and wait until the device is at most a few steps behind; see `Device.pace`."""
        if self._stop is not None:
            self._stop()
            self._stop = None
        self._device.pace()

    def _called(self, _: torch.nn.Module, arguments: Sequence[Any], named: Mapping[str, Any]) -> None:
        if self._stop is None:
            rows = self._rows = []  # each step has its own list, since a GPU reports later
            self._stop = self._device.stopwatch(lambda seconds: self._report(sum(rows), seconds))
        samples = next(
            (each for each in (*arguments, *named.values()) if isinstance(each, torch.Tensor)), None
        )
        self._rows.append(len(samples) if samples is not None and samples.ndim else 0)
