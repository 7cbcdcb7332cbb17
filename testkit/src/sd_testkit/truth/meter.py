# SPDX-License-Identifier: Apache-2.0
"""Measure how often `Ready` matches the outcome of a request.

The meter takes one sample a second of the operator's and of KubeRay's Ready.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sd_testkit.json_types import Json
from sd_testkit.scenarios.user import User

GRACE_SECONDS = 5.0
"""Seconds that Ready has to follow after the outcome of requests has changed."""
_PERIOD = 1.0
_PATIENCE = 5.0


@dataclass(frozen=True)
class Sample:
    """One second of a measurement.

    Attributes:
        at: monotonic seconds when the request was sent.
        served: whether a picture arrived in time; at zero replicas, whether it arrived at all.
        ours: whether the operator's Ready is True; None if there is no service, so that no value could be wrong.
        kuberays: the same for Ready of KubeRay's RayService.
        reason: reason of the operator's Ready.
    """

    at: float
    served: bool
    ours: bool | None
    kuberays: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """Seconds of one scenario with a service, and the seconds in which a Ready was wrong."""

    seconds: int
    ours_wrong: int
    kuberays_wrong: int


def judge(samples: Sequence[Sample]) -> Verdict:
    """Count the samples in which a Ready differs from the outcome of requests for longer than the grace period."""
    ours = kuberays = 0
    flipped = float("-inf")
    for before, sample in zip([None, *samples], samples, strict=False):
        if before is not None and before.served != sample.served:
            flipped = sample.at
        if sample.at - flipped >= GRACE_SECONDS:
            ours += sample.ours is not None and sample.ours != sample.served
            kuberays += sample.kuberays is not None and sample.kuberays != sample.served
    return Verdict(sum(each.ours is not None for each in samples), ours, kuberays)


@dataclass
class Meter:
    """Takes samples of a user's service until cancelled.

    The meter sends no requests while the user is quiet, so that the service can scale to zero.
    """

    user: User
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        """Start a sample every second, even if earlier samples have not ended."""
        async with asyncio.TaskGroup() as group:
            while True:
                if not self.user.quiet:
                    group.create_task(self._sample())
                await asyncio.sleep(_PERIOD)

    async def _sample(self) -> None:
        at = time.monotonic()
        service = await self.user.service()
        ray_service = await self.user.get("RayService")
        at_zero = service is not None and service["spec"].get("replicas", {}).get("min") == 0
        answer = await self.user.request(self.user.patience if at_zero else _PATIENCE)
        ours, reason = _ready(service)
        self.samples.append(Sample(at, answer.served, ours, _ready(ray_service)[0], reason))
        self.samples.sort(key=lambda each: each.at)


def _ready(live: Json | None) -> tuple[bool | None, str]:
    if live is None:
        return None, ""
    conditions = (live.get("status") or {}).get("conditions") or []
    ready: Json = next((each for each in conditions if each["type"] == "Ready"), {})
    return ready.get("status") == "True", ready.get("reason", "")
