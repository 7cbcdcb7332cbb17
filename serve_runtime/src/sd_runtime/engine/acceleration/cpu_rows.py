# SPDX-License-Identifier: Apache-2.0
"""One UNet call on several cores: the rows are shared out over threads, each of which computes on its own.

Torch would share out each operator instead and meet at its end. Such a meeting waits for the slowest core, so it pays
only where nothing else runs; here, pictures are decoded and requests answered on the same cores. With both cores of
the measured machine idle, a call of 16 rows at 64x64 takes 36 ms on one thread, 24 in torch's way and 25 in this one.
A core that decodes gets no share: the others would wait for it (ten rows beside a decoder took 36 to 41 ms on both
cores, 28 on the free one).
"""

from collections.abc import Callable
from functools import partial

import torch

from sd_runtime.engine.core_pool import CorePool
from sd_runtime.engine.pipelines.families import Conditions
from sd_runtime.engine.sampling.batched_step import Forward

_WORTH = 512  # cells of latents; for fewer, what Python does between the operators takes longer than they do


class CpuRows:
    """A call like the one it is given, on `cores` cores if it is large enough; below that one core is left to others.

    Of a large call's cores those are left out that compute something else, as many as `beside` says.
    """

    def __init__(self, call: Forward, cores: int, beside: Callable[[], int]) -> None:
        self._call = call
        self._cores = cores
        self._beside = beside
        self._pool = CorePool(cores)

    def __call__(
        self, samples: torch.Tensor, timesteps: torch.Tensor, conditions: Conditions
    ) -> torch.Tensor:
        """`samples` (rows, channels, height, width) and `timesteps` (rows,); conditions by rows too."""
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
