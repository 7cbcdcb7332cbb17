# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs of the UNet call: its thousand launches become one.

Torch's own graph trees belong to the thread that made them and keep each other's memory; these are captured where
the engine draws, one for each shape, and share one pool, since only one of them runs at a time.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sd_runtime.diffusion import failures
from sd_runtime.diffusion.batched_step import Forward
from sd_runtime.diffusion.families import Conditions
from sd_runtime.diffusion.loras import LoraSwitch

logger = logging.getLogger(__name__)

_KEPT = 64
_WARM_CALLS = 2  # libraries choose their kernels and allocate their workspace before a capture

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Captured:
    graph: Any
    inputs: Inputs
    output: torch.Tensor


_NOT_CAPTURED = _Captured(None, {}, torch.empty(0))


class Graphs:
    """The call, recorded once for each shape and set of LoRAs, then replayed."""

    def __init__(
        self, call: Forward, loras: LoraSwitch, is_settled: Callable[..., bool] = lambda *_: True
    ) -> None:
        self._call = call
        self._is_settled = is_settled
        self._loras = loras
        self._captured: dict[Any, _Captured] = {}
        self._pool: Any = None

    def __call__(
        self, samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """As the call itself; beyond the number of graphs kept it is made directly."""
        inputs = {"samples": samples, "timesteps": timesteps, **conditions}
        key = (self._loras.active, tuple((name, tensor.shape) for name, tensor in inputs.items()))
        found = self._captured.get(key)
        if found is None:
            if not self._is_settled(samples, timesteps, conditions):
                return self._call(samples, timesteps, conditions)  # until it is compiled
            if len(self._captured) >= _KEPT:
                return self._call(samples, timesteps, conditions)
            found = self._captured[key] = self._tried(inputs)
        if found is _NOT_CAPTURED:
            return self._call(samples, timesteps, conditions)
        for name, tensor in inputs.items():
            found.inputs[name].copy_(tensor)
        found.graph.replay()
        return found.output.clone()  # the next replay writes over it

    def _tried(self, inputs: Inputs) -> _Captured:
        """A capture; where it fails, such as for want of memory, calls of these shapes are made directly from then on."""
        try:
            return self._capture(inputs)
        except Exception as error:  # noqa: BLE001 - the direct call says what is wrong, if anything is
            logger.warning("a CUDA graph was not captured: %s", failures.one_line(error))
            failures.free_memory()
            return _NOT_CAPTURED

    def _capture(self, inputs: Inputs) -> _Captured:
        static = {name: tensor.clone() for name, tensor in inputs.items()}
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_WARM_CALLS):
                self._run(static)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: the decoding thread may allocate meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._run(static)
        return _Captured(graph, static, output)

    def _run(self, inputs: Inputs) -> torch.Tensor:
        conditions = {name: tensor for name, tensor in inputs.items() if name not in {"samples", "timesteps"}}
        return self._call(inputs["samples"], inputs["timesteps"], conditions)
