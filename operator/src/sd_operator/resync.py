# SPDX-License-Identifier: Apache-2.0
"""The periodic LIST: what the watch lost, reordered or never said is found here."""

import asyncio
import logging
import time
from collections.abc import Callable

from sd_operator.cluster import SERVICE, Cluster
from sd_operator.errors import SdServiceError
from sd_operator.naming import Key
from sd_operator.settings import Settings

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 5.0


class Resync:
    """Adds every resource to the queue, at the start and every `resync_seconds`."""

    def __init__(self, cluster: Cluster, add: Callable[[Key], None], settings: Settings) -> None:
        self._cluster = cluster
        self._add = add
        self._settings = settings
        self._last_good = time.monotonic()

    def age_seconds(self) -> float:
        """Seconds since the last complete LIST; what the liveness probe reports."""
        return time.monotonic() - self._last_good

    async def run(self) -> None:
        """Resync until cancelled; a failed LIST is tried again soon."""
        while True:
            try:
                await self.once()
            except SdServiceError as error:
                logger.warning("resync: %s; again in %.0f s", error, _RETRY_SECONDS)
                await asyncio.sleep(_RETRY_SECONDS)
            else:
                await asyncio.sleep(self._settings.resync_seconds)

    async def once(self) -> None:
        """One complete LIST of the watched namespaces."""
        for namespace in self._settings.served_namespaces or (None,):
            for live in await self._cluster.list(SERVICE, namespace):
                self._add(Key(live["metadata"]["namespace"], live["metadata"]["name"]))
        self._last_good = time.monotonic()
