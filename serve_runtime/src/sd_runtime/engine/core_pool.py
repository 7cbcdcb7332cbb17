# SPDX-License-Identifier: Apache-2.0
"""A pool that runs calls at the same time, each on CPU cores of its own."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from sd_runtime.engine.device import set_threads

T = TypeVar("T")


class CorePool:
    """Runs calls at the same time: the first call on the calling thread, the others on the pool's threads."""

    def __init__(self, cores: int) -> None:
        self._others = ThreadPoolExecutor(max(1, cores - 1), thread_name_prefix="lane")

    def run(self, calls: Sequence[Callable[[], T]], threads: int = 1) -> list[T]:
        """Run the calls and return their results in the same order.

        Each call runs in inference mode and uses `threads` threads of torch.
        """

        def compute(call: Callable[[], T]) -> T:
            set_threads(threads)
            with torch.inference_mode():
                return call()

        first, *others = calls
        running = [self._others.submit(compute, each) for each in others]
        return [compute(first), *(each.result() for each in running)]
