# SPDX-License-Identifier: Apache-2.0
"""Reports the result of a pass: the status if it changed, an Event for each change, and metrics of starts."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sd_operator import naming
from sd_operator.api import KIND, Status
from sd_operator.api.resource import API_VERSION
from sd_operator.errors import Refused
from sd_operator.json_types import Json
from sd_operator.kube import Cluster
from sd_operator.metrics import Metrics
from sd_operator.observe import cold_start
from sd_operator.observe.snapshot import Snapshot
from sd_operator.reconcile.events import Note, event, flips

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reporter:
    """Writes the status and Events of one resource, and updates metrics."""

    cluster: Cluster
    metrics: Metrics
    clock: Callable[[], datetime]

    async def report(self, live: Json, before: Status, after: Status, notes: list[Note]) -> None:
        """Write the status if it changed, and an Event for each change.

        Args:
            live: the resource.
            before: the recorded status.
            after: the new status.
            notes: notes of what was done; each is removed once its Event is written.

        Raises:
            ClusterUnavailable: the API server is unavailable or overloaded.
        """
        if after != before:
            await self.cluster.apply_status(_status_body(live, after), naming.STATUS_FIELD_MANAGER)
        notes += flips(before, after)
        while notes:
            metadata = live["metadata"]
            logger.info("%s/%s: %s", metadata["namespace"], metadata["name"], notes[0].message)
            await self._record(event(notes[0], live, self.clock()))
            notes.pop(0)

    def measure(self, snapshot: Snapshot, before: Status, after: Status) -> None:
        """Count each complete start of a worker once: those that the recorded status does not have."""
        former, latest = before.cold_start, after.cold_start
        for start in cold_start.news(snapshot, former, self.clock()):
            self.metrics.started(start)
        if latest is None or latest.first_picture_seconds is None:
            return
        if former is None or former.worker != latest.worker or former.first_picture_seconds is None:
            self.metrics.drew(latest.first_picture_seconds)

    async def _record(self, body: Json) -> None:
        """Create an Event; a refused Event (a full quota, a namespace that is being deleted) is not retried."""
        try:
            await self.cluster.create(body, naming.FIELD_MANAGER)
        except Refused as error:
            logger.debug("%s", error)


def _status_body(live: Json, after: Status) -> Json:
    metadata = live["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        # The uid makes the write fail if the resource was deleted and created again meanwhile.
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "status": after.model_dump(by_alias=True, exclude_none=True, mode="json"),
    }
