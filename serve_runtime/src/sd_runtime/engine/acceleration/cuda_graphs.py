# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs of the UNet call: its thousand launches become one.

Torch's own graph trees belong to the thread that made them and keep each other's memory; these are captured during the
warm-up, one for each shape and set of LoRAs, and share one pool, since only one of them runs at a time. A capture takes
three calls' time, which no request should wait for: shapes that were not warmed are called directly.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.lora.lora_switch import LoraSwitch
from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling.batched_step import Forward

logger = logging.getLogger(__name__)

KEPT = 64
_WARM_CALLS = 2  # libraries choose their kernels and allocate their workspace before a capture

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Captured:
    graph: Any
    inputs: Inputs
    output: torch.Tensor


class Graphs:
    """The call, captured for the shapes and LoRAs of the warm-up, replayed for these and direct for all others."""

    def __init__(self, call: Forward, loras: LoraSwitch) -> None:
        self._call = call
        self._loras = loras
        self._captured: OrderedDict[Any, _Captured | None] = OrderedDict()  # None: it cannot be captured
        self._may_capture = False
        self._pool: Any = None

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Calls within this block are captured; with more than are kept, the one that was used longest ago goes."""
        self._may_capture = True
        try:
            yield
        finally:
            self._may_capture = False

    def __call__(
        self, samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """As the call itself."""
        inputs = {"samples": samples, "timesteps": timesteps, **conditions}
        key = (self._loras.active, tuple((name, tensor.shape) for name, tensor in inputs.items()))
        if self._may_capture and key not in self._captured:
            self._captured[key] = self._tried(inputs)
            if len(self._captured) > KEPT:
                self._captured.popitem(last=False)
        found = self._captured.get(key)
        if found is None:
            return self._call(samples, timesteps, conditions)
        self._captured.move_to_end(key)
        for name, tensor in inputs.items():
            found.inputs[name].copy_(tensor)
        found.graph.replay()
        return found.output.clone()  # the next replay writes over it

    def _tried(self, inputs: Inputs) -> _Captured | None:
        """A capture; None where it fails, such as for want of memory."""
        try:
            return self._capture(inputs)
        except Exception as error:  # noqa: BLE001 - the direct call says what is wrong, if anything is
            logger.warning(
                "a CUDA graph was not captured, so calls run without it: %s", failures.one_line(error)
            )
            failures.free_memory()
            return None

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
