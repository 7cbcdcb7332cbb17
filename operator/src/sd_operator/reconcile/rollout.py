# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to get other pods because of the operator, not of an edit: a few services at a time.

Another version of the operator, or another setting of it, may give pods something else: a new runtime image by default.
That concerns every service, and each wants a second cluster beside its first one for a while.
"""

import time
from collections.abc import Callable

from sd_operator import naming
from sd_operator.api import Resource, Status
from sd_operator.api.status import ConditionType, Reason
from sd_operator.json_types import Json
from sd_operator.naming import Key

PATIENCE_SECONDS = 1800.0
"""Whoever takes longer is passed by: a cluster that never comes up keeps nobody from the mended version."""


def concerns(resource: Resource, wanted: Json, live: Json | None, before: Status) -> bool:
    """Whether a RayService would get another cluster although its spec is as before.

    Args:
        resource: what is asked for.
        wanted: the RayService of that.
        live: the live one, None where there is none.
        before: the status on record.
    """
    if live is None or resource.spec.suspend or resource.spec.upgrade.strategy == "InPlaceOnly":
        return False  # no second cluster
    if before.observed_generation != resource.generation:
        return False  # an edit
    if any(each.type == ConditionType.READY and each.status == "False" for each in before.conditions):
        return False  # it has nothing to lose
    if any(each.reason == Reason.WAITING_FOR_IMAGES for each in before.conditions):
        return False  # an edit that waited, or one whose turn it is
    asked, given = ((each["metadata"].get("annotations") or {}) for each in (wanted, live))
    return bool(asked.get(naming.CLUSTER_CONFIG_ANNOTATION) != given.get(naming.CLUSTER_CONFIG_ANNOTATION))


class Rollout:
    """Who is at it.

    It is known to this process alone: after a restart as many more may begin. They are counted until they are through, or
    have taken half an hour.
    """

    def __init__(self, at_once: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._at_once = at_once
        self._clock = clock
        self._begun: dict[Key, float] = {}

    def ahead(self, key: Key) -> int:
        """How many are at it while this one has to wait; 0: it is at it from now on."""
        now = self._clock()
        others = [each for each, at in self._begun.items() if each != key and now - at < PATIENCE_SECONDS]
        if len(others) >= self._at_once:
            return len(others)
        self._begun.setdefault(key, now)
        return 0

    def through(self, key: Key) -> None:
        """It has its cluster, or is gone."""
        self._begun.pop(key, None)
