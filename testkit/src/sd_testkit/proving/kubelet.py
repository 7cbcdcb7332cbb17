# SPDX-License-Identifier: Apache-2.0
"""Starts an operator again that ended by itself, as a kubelet does, and counts."""

import asyncio
import contextlib
from collections.abc import Mapping

from sd_testkit.operator_process import OperatorProcess

_POLL = 0.1
_PAUSE = 0.5  # a kubelet's first is 10 s; this one is in a hurry


class Kubelet:
    """Keeps one operator running from `start` to `stop`; `codes`: how it ended, each time that it did by itself."""

    def __init__(self, operator: OperatorProcess) -> None:
        self.codes: list[int] = []
        self._operator = operator
        self._task: asyncio.Task[None] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start it, and again whenever it ends."""
        self._operator.start(**environment)
        self._task = asyncio.create_task(self._keep(environment))

    async def stop(self) -> None:
        """Let it end from now on."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    async def _keep(self, environment: Mapping[str, str]) -> None:
        while True:
            await asyncio.sleep(_POLL)
            code = self._operator.exit_code()
            if code is not None:
                self.codes.append(code)
                await asyncio.sleep(_PAUSE)
                self._operator.start(**environment)
