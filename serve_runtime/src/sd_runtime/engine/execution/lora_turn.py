# SPDX-License-Identifier: Apache-2.0
"""How long one set of LoRAs keeps the UNet before another set gets it.

A switch of the UNet from one set to another takes 23 ms of Python for Stable Diffusion 2.1 and 120 ms for SDXL. A set
therefore keeps its turn for a while. A turn is 16 times as long as a switch, within the least and the longest turn.
Without other sets in flight a turn has no effect.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from sd_runtime.engine.image_task import BatchKey
from sd_runtime.engine.lora.lora_switch import Active

TURN_SECONDS = 0.25
"""The least length of a turn; it applies where switches are quick."""
LONGEST_TURN_SECONDS = 2.0
"""The longest turn, however slow a switch is: waiting tasks must not wait forever."""
_SWITCHES = 16  # a turn is as long as this many switches


class LoraTurn:
    """The set of LoRAs whose images are computed now.

    Attributes:
        seconds: the least length of a turn.
    """

    def __init__(
        self, seconds: float, switch_seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Create a turn without a set; the first turn starts with the first call of `take`.

        Args:
            seconds: the least length of a turn.
            switch_seconds: returns the seconds of the latest switch; 0 before the first one.
            clock: returns monotonic seconds.
        """
        self.seconds = seconds
        self._switch_seconds = switch_seconds
        self._clock = clock
        self._loras: Active | None = None
        self._began = 0.0

    def eligible(self, kinds: Iterable[BatchKey]) -> Sequence[BatchKey]:
        """Return the batch keys that may be next: keys of the current set while its turn lasts, else all keys."""
        every = list(kinds)
        own = [kind for kind in every if kind.active_loras == self._loras]
        return own if own and not self._is_over() else every

    def take(self, kind: BatchKey) -> None:
        """Choose this batch key for the next step; a new turn starts if the last one is over or has another set."""
        if kind.active_loras != self._loras or self._is_over():
            self._loras, self._began = kind.active_loras, self._clock()

    def _is_over(self) -> bool:
        length = max(self.seconds, min(_SWITCHES * self._switch_seconds(), LONGEST_TURN_SECONDS))
        return self._clock() - self._began >= length
