# SPDX-License-Identifier: Apache-2.0
"""Restart an operator that ended by itself, as a kubelet does, and count the restarts."""

import asyncio
import contextlib
from collections.abc import Mapping

from sd_testkit.operator_process import OperatorProcess

_POLL = 0.1
_PAUSE = 0.5  # The first wait of a kubelet is 10 s. Tests use a shorter one.


class Kubelet:
    """Keeps one operator running from `start` to `stop`.

    `codes` has the exit code of each end that was not requested.
    """

    def __init__(self, operator: OperatorProcess) -> None:
        self.codes: list[int] = []
        self._operator = operator
        self._task: asyncio.Task[None] | None = None

    def start(self, environment: Mapping[str, str]) -> None:
        """Start the operator, and start it again whenever it ends."""
        self._operator.start(**environment)
        self._task = asyncio.create_task(self._keep(environment))

    async def stop(self) -> None:
        """Stop restarting the operator."""
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
