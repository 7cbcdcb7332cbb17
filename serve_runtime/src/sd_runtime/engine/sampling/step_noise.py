# SPDX-License-Identifier: Apache-2.0
"""The random numbers of one image: its first latents, then the noise of those steps that add some.

They come from a generator of its own on the CPU, so that they depend on neither device nor neighbours, and in the order,
shape and type in which diffusers draws them, so that a seed means here what it means there.

To draw the noise of eight images of 1024 pixels takes 4 ms a step. So another thread draws that of the next few steps
meanwhile (`NoiseAhead`); a step whose noise is not there yet draws it itself. Either way the order is the same.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

import torch

from sd_runtime.engine.device import Device
from sd_runtime.engine.sampling.step_plan import MODEL_TYPE

WINDOW = 4
"""Steps whose noise is drawn before they come."""


class StepNoise:
    """Draws the noise of one image; two threads may draw.

    Attributes:
        generator: what it draws from.
        refill: called after each step that leaves fewer than the window.
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
        self.refill: Callable[[StepNoise], None] = lambda _: None
        self._shape = shape
        self._dtype = dtype
        self._types = [self._dtype if each is MODEL_TYPE else each for each in steps]
        self._step = 0
        self._drawn: deque[torch.Tensor | None] = deque()  # of this step and those after it
        self._lock = threading.Lock()

    def first(self) -> torch.Tensor:
        """What the latents start from; asked once, before any step."""
        return self._draw(self._dtype)

    def current(self) -> torch.Tensor | None:
        """The noise of the step that is to be taken, float32 on the CPU; None: it adds none. Asking twice draws once."""
        with self._lock:
            if not self._drawn:
                self._draw_next()
            return self._drawn[0]

    def taken(self) -> None:
        """The step has been taken."""
        with self._lock:
            if not self._drawn:
                self._draw_next()
            self._drawn.popleft()
            self._step += 1
            lacks = self._lacks()
        if lacks:
            self.refill(self)

    def draw_ahead(self) -> None:
        """Draw the noise of the next steps, as far as the window goes; another thread may take steps meanwhile."""
        while True:
            with self._lock:
                if not self._lacks():
                    return
                self._draw_next()

    def _lacks(self) -> bool:
        """Whether a step within the window has no noise yet and adds some."""
        begin, end = self._step + len(self._drawn), self._step + WINDOW
        return any(each is not None for each in self._types[begin:end])

    def _draw_next(self) -> None:
        dtype = self._types[self._step + len(self._drawn)]
        self._drawn.append(None if dtype is None else self._draw(dtype))

    def _draw(self, dtype: torch.dtype) -> torch.Tensor:
        return torch.randn(self._shape, generator=self.generator, dtype=dtype).float()


class NoiseAhead:
    """The thread that draws noise before its step comes."""

    def __init__(self, on: Device) -> None:
        """Start the thread.

        Args:
            on: where images are denoised.
        """
        self._device = on
        self._wanted: queue.SimpleQueue[StepNoise | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="noise", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it still draws."""
        return self._thread.is_alive()

    def put(self, noise: StepNoise) -> None:
        """Draw what its next steps add; from any thread."""
        self._wanted.put(noise)

    def close(self) -> None:
        """End the thread; steps that are still to come draw their noise themselves."""
        self._wanted.put(None)

    def _run(self) -> None:
        self._device.enter("noise")
        while (noise := self._wanted.get()) is not None:
            noise.draw_ahead()
