# SPDX-License-Identifier: Apache-2.0
"""CPU rows: splits the rows of one UNet call into row groups, and computes each group on its own core.

Torch would instead split each operator over the cores, with a barrier at its end. Such a barrier waits for the slowest
core, so it is fast only where nothing else runs. Here the same cores also decode images and answer requests. With both
cores of the measured machine idle, a call of 16 rows at 64x64 takes 36 ms on one thread, 24 ms with torch's split and
25 ms with row groups. A core that decodes gets no row group, since the other cores would wait for it: ten rows beside
a decoder took 36 to 41 ms on both cores, and 28 ms on the free core.
"""

from collections.abc import Callable
from functools import partial

import torch

from sd_runtime.engine.core_pool import CorePool
from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling.batched_step import Forward

_WORTH = 512  # cells of latents; with fewer, Python between the operators takes longer than the operators


class CpuRows:
    """A UNet call that computes its rows on several of `cores` cores.

    A large call skips the cores that are busy with other work; `beside` returns their number. A small call is not split,
    and leaves one core to other work.
    """

    def __init__(self, call: Forward, cores: int, beside: Callable[[], int]) -> None:
        self._call = call
        self._cores = cores
        self._beside = beside
        self._pool = CorePool(cores)

    def __call__(
        self, samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """Run the call.

        Args:
            samples: latents of shape (rows, channels, height, width).
            timesteps: timesteps of shape (rows,).
            conditions: tensors whose first dimension is rows too.
        """
        rows, _, height, width = samples.shape
        if rows * height * width < _WORTH:
            whole = partial(self._call, samples, timesteps, conditions)
            return self._pool.run([whole], max(1, self._cores - 1))[0]
        free = max(1, self._cores - self._beside())
        lanes = min(rows, free)
        by_name = {name: tensor.tensor_split(lanes) for name, tensor in conditions.items()}
        calls = [
            partial(self._call, part, times, {name: parts[lane] for name, parts in by_name.items()})
            for lane, (part, times) in enumerate(
                zip(samples.tensor_split(lanes), timesteps.tensor_split(lanes), strict=True)
            )
        ]
        return torch.cat(self._pool.run(calls, free // lanes))
