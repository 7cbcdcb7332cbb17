# SPDX-License-Identifier: Apache-2.0
"""How long one set of LoRAs keeps the UNet before another set gets it.

To switch the UNet from one set to another takes 23 ms of Python for Stable Diffusion 2.1 and 120 ms for SDXL. A set
therefore keeps its turn for a while. The longer a switch takes, the longer the turn is: a sixteenth of it is the switch, up to
the longest turn. Without other sets in flight a turn has no effect.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from sd_runtime.engine.image_task import BatchKey
from sd_runtime.engine.lora.lora_switch import Active

TURN_SECONDS = 0.25
"""Length of a turn where switches are quick."""
LONGEST_TURN_SECONDS = 2.0
"""Length of a turn that no slow switch exceeds: what waits for its turn must not wait for ever."""
_SWITCHES = 16  # a turn is as long as so many switches


class LoraTurn:
    """The set of LoRAs whose images are computed now.

    Attributes:
        seconds: the least length of a turn.
    """

    def __init__(
        self, seconds: float, switch_seconds: Callable[[], float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Let the first turn begin with the first call of `take`.

        Args:
            seconds: the least length of a turn.
            switch_seconds: what the latest switch took; 0 before the first.
            clock: monotonic seconds.
        """
        self.seconds = seconds
        self._switch_seconds = switch_seconds
        self._clock = clock
        self._loras: Active | None = None
        self._began = 0.0

    def eligible(self, kinds: Iterable[BatchKey]) -> Sequence[BatchKey]:
        """Those of the batch keys that may be next: while the turn lasts those of its set, else all."""
        every = list(kinds)
        own = [kind for kind in every if kind.active_loras == self._loras]
        return own if own and not self._is_over() else every

    def take(self, kind: BatchKey) -> None:
        """Let the next step be one of this batch key; a turn begins if the last one is over or of another set."""
        if kind.active_loras != self._loras or self._is_over():
            self._loras, self._began = kind.active_loras, self._clock()

    def _is_over(self) -> bool:
        length = max(self.seconds, min(_SWITCHES * self._switch_seconds(), LONGEST_TURN_SECONDS))
        return self._clock() - self._began >= length
