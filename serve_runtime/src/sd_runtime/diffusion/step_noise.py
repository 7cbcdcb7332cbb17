# SPDX-License-Identifier: Apache-2.0
"""The random numbers of one image: its first latents, then the noise of those steps that add some.

They come from a generator of its own on the CPU, so that they depend on neither device nor neighbours, and in the order,
shape and type in which diffusers draws them, so that a seed means here what it means there.
"""

from collections.abc import Sequence

import torch

from sd_runtime.diffusion.step_plan import MODEL_TYPE


class StepNoise:
    """Draws the noise of one image.

    Attributes:
        generator: what it draws from.
    """

    def __init__(
        self, seed: int, shape: tuple[int, ...], dtype: torch.dtype, steps: Sequence[torch.dtype | None]
    ) -> None:
        """Nothing is drawn yet.

        Args:
            seed: of the image.
            shape: of its latents, one row.
            dtype: of the model.
            steps: as StepPlan.noise.
        """
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self._shape = shape
        self._dtype = dtype
        self._steps = steps
        self._step = 0
        self._drawn: torch.Tensor | None = None

    def first(self) -> torch.Tensor:
        """What the latents start from; asked once, before any step."""
        return self._draw(self._dtype)

    def current(self) -> torch.Tensor | None:
        """The noise of the step that is to be taken, float32 on the CPU; None: it adds none. Asking twice draws once."""
        dtype = self._steps[self._step]
        if dtype is not None and self._drawn is None:
            self._drawn = self._draw(self._dtype if dtype is MODEL_TYPE else dtype)
        return self._drawn

    def taken(self) -> None:
        """The step has been taken."""
        self._step += 1
        self._drawn = None

    def _draw(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(self._shape, generator=self.generator, dtype=dtype).float()
