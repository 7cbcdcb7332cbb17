# SPDX-License-Identifier: Apache-2.0
"""The random numbers of one image: its first latents, then the noise of those steps that add some.

Each image has its own generator on the CPU, so its numbers depend neither on the device nor on the other images of a
batch. Order, shape and dtype are those of diffusers, so a seed gives the same numbers here as there.

The noise of eight images of 1024 pixels takes 4 ms per step to generate. So another thread generates the noise of the
next few steps in advance (`NoiseAhead`). A step whose noise is not ready generates it itself. The order is the same in
both cases.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

import torch

from sd_runtime.engine.device import Device
from sd_runtime.engine.sampling.step_plan import MODEL_TYPE

WINDOW = 4
"""The number of steps whose noise is generated in advance."""


class StepNoise:
    """Generates the noise of one image; two threads may use it.

    Attributes:
        generator: the random number generator of the image.
        refill: called after each step that leaves fewer steps with noise than the window.
    """

    def __init__(
        self, seed: int, shape: tuple[int, ...], dtype: torch.dtype, steps: Sequence[torch.dtype | None]
    ) -> None:
        """Make the generator; no noise is generated yet.

        Args:
            seed: the seed of the image.
            shape: the shape of its latents, one row.
            dtype: the dtype of the model.
            steps: see StepPlan.noise.
        """
        self.generator = torch.Generator("cpu").manual_seed(seed)
        self.refill: Callable[[StepNoise], None] = lambda _: None
        self._shape = shape
        self._dtype = dtype
        self._types = [self._dtype if each is MODEL_TYPE else each for each in steps]
        self._step = 0
        self._drawn: deque[torch.Tensor | None] = deque()  # of this step and those after it
        self._lock = threading.Lock()

    def first(self) -> torch.Tensor:
        """Generate the noise from which the latents start; call it once, before any step."""
        return self._draw(self._dtype)

    def current(self) -> torch.Tensor | None:
        """Return the noise of the next step, float32 on the CPU; None: the step adds none.

        A second call for the same step returns the same noise.
        """
        with self._lock:
            if not self._drawn:
                self._draw_next()
            return self._drawn[0]

    def taken(self) -> None:
        """Advance to the noise of the next step."""
        with self._lock:
            if not self._drawn:
                self._draw_next()
            self._drawn.popleft()
            self._step += 1
            lacks = self._lacks()
        if lacks:
            self.refill(self)

    def draw_ahead(self) -> None:
        """Generate the noise of the next steps within the window; another thread may take steps meanwhile."""
        while True:
            with self._lock:
                if not self._lacks():
                    return
                self._draw_next()

    def _lacks(self) -> bool:
        """Whether a step within the window adds noise that is not generated yet."""
        begin, end = self._step + len(self._drawn), self._step + WINDOW
        return any(each is not None for each in self._types[begin:end])

    def _draw_next(self) -> None:
        dtype = self._types[self._step + len(self._drawn)]
        self._drawn.append(None if dtype is None else self._draw(dtype))

    def _draw(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(self._shape, generator=self.generator, dtype=dtype).float()


class NoiseAhead:
    """The thread that generates noise in advance of its step."""

    def __init__(self, on: Device) -> None:
        """Start the thread.

        Args:
            on: the device on which images are denoised.
        """
        self._device = on
        self._wanted: queue.SimpleQueue[StepNoise | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="noise", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    def put(self, noise: StepNoise) -> None:
        """Queue an image whose next steps need noise; any thread may call it."""
        self._wanted.put(noise)

    def close(self) -> None:
        """End the thread; later steps generate their noise themselves."""
        self._wanted.put(None)

    def _run(self) -> None:
        self._device.enter("noise")
        while (noise := self._wanted.get()) is not None:
            noise.draw_ahead()
