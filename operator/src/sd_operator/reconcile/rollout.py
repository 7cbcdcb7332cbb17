# SPDX-License-Identifier: Apache-2.0
"""Limits concurrent upgrades that an operator release or setting (not a spec edit) causes.

A new version or setting of the operator may change pods, for example by a new default runtime image. This concerns every
service, and each service then needs a second cluster beside its first one for a while.
"""

import time
from collections.abc import Callable

from sd_operator import naming
from sd_operator.api import Resource, Status
from sd_operator.api.status import ConditionType, Reason
from sd_operator.json_types import Json
from sd_operator.naming import Key

PATIENCE_SECONDS = 1800.0
"""After this time an upgrade no longer counts, so that a cluster that never starts does not block a repaired version."""


def concerns(resource: Resource, wanted: Json, live: Json | None, before: Status) -> bool:
    """Whether a RayService would get another cluster although its spec has not changed.

    Args:
        resource: the resource.
        wanted: the desired RayService.
        live: the live RayService; None if there is none.
        before: the recorded status.
    """
    if live is None or resource.spec.suspend or resource.spec.upgrade.strategy == "InPlaceOnly":
        return False  # no second cluster
    if before.observed_generation != resource.generation:
        return False  # an edit
    if any(each.type == ConditionType.READY and each.status == "False" for each in before.conditions):
        return False  # the service does not serve, so an upgrade cannot interrupt it
    if any(each.reason == Reason.WAITING_FOR_IMAGES for each in before.conditions):
        return False  # an edit that was on hold, or an upgrade that has its slot already
    desired, current = ((each["metadata"].get("annotations") or {}) for each in (wanted, live))
    return bool(
        desired.get(naming.CLUSTER_CONFIG_ANNOTATION) != current.get(naming.CLUSTER_CONFIG_ANNOTATION)
    )


class Rollout:
    """The services that are being upgraded now.

    Only this process knows them, so as many more may start after a restart. An upgrade counts until it has finished, or for
    half an hour.
    """

    def __init__(self, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._clock = clock
        self._started: dict[Key, float] = {}

    def ahead(self, key: Key) -> int:
        """The number of running upgrades if this service must wait; 0: its upgrade starts now."""
        now = self._clock()
        others = [each for each, at in self._started.items() if each != key and now - at < PATIENCE_SECONDS]
        if len(others) >= self._at_once:
            return len(others)
        self._started.setdefault(key, now)
        return 0

    def through(self, key: Key) -> None:
        """Note that an upgrade has finished, or that the service is gone."""
        self._started.pop(key, None)
