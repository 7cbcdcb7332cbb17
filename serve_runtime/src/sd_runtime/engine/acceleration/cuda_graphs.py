# SPDX-License-Identifier: Apache-2.0
"""CUDA graphs of the UNet call: one graph launch replaces a thousand kernel launches.

Torch's own graph trees belong to the thread that captured them, and keep each other's memory. Here each shape and set of
LoRAs has its own graph. All graphs share one memory pool, since only one of them runs at a time.

A capture takes the time of three calls, and no request should wait for it. The warm-up therefore captures its shapes
without LoRAs, before the first request. A set of LoRAs that requests use repeatedly is captured at these shapes while the
denoising thread is idle. All other calls are direct.
"""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from sd_runtime.engine import failures
from sd_runtime.engine.lora.lora_switch import Active, LoraSwitch
from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling.batched_step import Forward

logger = logging.getLogger(__name__)

KEPT = 64
OFTEN = 50
"""Direct calls of a shape with a set of LoRAs before a graph is captured: the steps of about two images."""
_COUNTED = 256  # combinations whose direct calls are counted; clients may choose any strength
_WARM_CALLS = 2  # libraries choose their kernels and allocate their workspace before a capture

Inputs = dict[str, torch.Tensor]
Shapes = tuple[tuple[str, torch.Size], ...]
Interrupted = Callable[[], bool]


class _Key(NamedTuple):
    active: Active | None
    shapes: Shapes


@dataclass(frozen=True)
class _Captured:
    graph: Any
    inputs: Inputs
    output: torch.Tensor


class _InterruptedError(Exception):
    """A request has arrived during a capture."""


class Graphs:
    """A UNet call that replays a captured graph if there is one, else calls directly; only one thread may use it."""

    def __init__(
        self, call: Forward, loras: LoraSwitch, compiling: Callable[..., bool] = lambda *_: False
    ) -> None:
        """Create the call; the constructor captures nothing.

        Args:
            call: the UNet call.
            loras: the LoRA switch of the UNet.
            compiling: whether compiled code for these inputs is still expected; such a call is not captured yet.
        """
        self._call = call
        self._loras = loras
        self._compiling = compiling
        self._captured: OrderedDict[_Key, _Captured | None] = OrderedDict()  # None: the capture failed
        self._direct: OrderedDict[_Key, int] = OrderedDict()
        self._warmed: dict[Shapes, Inputs] = {}  # with empty tensors
        self._may_capture = False
        self._pool: Any = None

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Calls within this block are captured; above `KEPT` graphs, the least recently used graph is dropped."""
        self._may_capture = True
        try:
            yield
        finally:
            self._may_capture = False

    def __call__(
        self, samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """Run the call; the result is that of the direct call."""
        inputs = {"samples": samples, "timesteps": timesteps, **conditions}
        key = _Key(self._loras.active, tuple((name, tensor.shape) for name, tensor in inputs.items()))
        if self._may_capture and key not in self._captured:
            self._warmed[key.shapes] = {name: tensor.new_empty(0) for name, tensor in inputs.items()}
            self._keep(key, self._tried(inputs))
        found = self._captured.get(key)
        if found is None:
            self._count(key)
            return self._call(samples, timesteps, conditions)
        self._captured.move_to_end(key)
        for name, tensor in inputs.items():
            found.inputs[name].copy_(tensor)
        found.graph.replay()
        return found.output.clone()  # the next replay overwrites the output

    def capture_repeated(self, interrupted: Interrupted) -> None:
        """Capture the combinations with many direct calls; the denoising thread calls this while it is idle.

        A request that arrives during a capture waits for one call or one switch of LoRAs at most.

        Args:
            interrupted: whether a request has arrived; an unfinished capture is then dropped, and repeated later.
        """
        before = self._loras.active or Active()
        often = [key for key, calls in self._direct.items() if calls >= OFTEN]
        try:
            for key in sorted(often, key=lambda each: (each.active != before, each.active)):
                if interrupted():
                    break
                self._capture_idle(key, interrupted)
            self._loras.activate(*before)
        except Exception as error:  # noqa: BLE001 - the switch failed; the next request switches again
            logger.warning(
                "No CUDA graph was captured, because switching LoRAs failed: %s", failures.one_line(error)
            )

    def forget(self, lora: str) -> None:
        """Drop the graphs that contain a LoRA's weights.

        The denoising thread calls this when the weights change or are unloaded.
        """
        for kept in (self._captured, self._direct):
            for key in [each for each in kept if each.active is not None and lora in each.active.names]:
                del kept[key]

    def _count(self, key: _Key) -> None:
        """Count a direct call that a graph could replace; above `_COUNTED` combinations the least recent is dropped."""
        if key.shapes in self._warmed and key.active is not None and key not in self._captured:
            self._direct[key] = self._direct.get(key, 0) + 1
            self._direct.move_to_end(key)
            if len(self._direct) > _COUNTED:
                self._direct.popitem(last=False)

    def _capture_idle(self, key: _Key, interrupted: Interrupted) -> None:
        """Capture a combination; the count stays if the capture is interrupted or code is still being compiled."""
        began, calls = time.monotonic(), self._direct.pop(key)
        self._loras.activate(*(key.active or Active()))
        blank = self._warmed[key.shapes]
        inputs = {name: blank[name].new_zeros(shape) for name, shape in key.shapes}
        if self._compiling(*_arguments(inputs)):
            self._direct[key] = calls
            return
        try:
            self._keep(key, self._tried(inputs, interrupted))
        except _InterruptedError:
            self._direct[key] = calls
        if self._captured.get(key) is not None:
            seconds = time.monotonic() - began
            logger.info("A CUDA graph was captured for the LoRAs %s in %.2f s", key.active, seconds)

    def _keep(self, key: _Key, captured: _Captured | None) -> None:
        self._captured[key] = captured
        if len(self._captured) > KEPT:
            self._captured.popitem(last=False)

    def _tried(self, inputs: Inputs, interrupted: Interrupted = lambda: False) -> _Captured | None:
        """Return a captured graph; None if the capture fails, for example because memory runs out."""
        try:
            return self._capture(inputs, interrupted)
        except _InterruptedError:
            raise
        except Exception as error:  # noqa: BLE001 - if the call itself is faulty, the direct call raises
            logger.warning(
                "a CUDA graph was not captured, so calls run without it: %s", failures.one_line(error)
            )
            failures.free_memory()
            return None

    def _capture(self, inputs: Inputs, interrupted: Interrupted) -> _Captured:
        static = {name: tensor.clone() for name, tensor in inputs.items()}
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        self._warm(static, interrupted)
        graph = torch.cuda.CUDAGraph()
        # Thread-local: the decoding thread may allocate meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"):
            output = self._call(*_arguments(static))
        return _Captured(graph, static, output)

    def _warm(self, static: Inputs, interrupted: Interrupted) -> None:
        """Run the call a few times on a separate stream; at most one call is queued at a time."""
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        for _ in range(_WARM_CALLS):
            with torch.cuda.stream(aside):
                self._call(*_arguments(static))
            aside.synchronize()
            if interrupted():
                raise _InterruptedError


def _arguments(inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor, Conditions]:
    conditions = {name: tensor for name, tensor in inputs.items() if name not in {"samples", "timesteps"}}
    return inputs["samples"], inputs["timesteps"], conditions
