# SPDX-License-Identifier: Apache-2.0
"""How often `Ready` says what a request would get: one sample a second, ours and KubeRay's side by side."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from sd_testkit.json_types import Json
from sd_testkit.scenarios.user import User

GRACE_SECONDS = 5.0
"""After what requests get has flipped, Ready has so long to follow."""
_PERIOD = 1.0
_PATIENCE = 5.0


@dataclass(frozen=True)
class Sample:
    """One second.

    Attributes:
        at: monotonic seconds when the request was sent.
        served: a picture came in time; at zero replicas, at all.
        ours: our Ready is True; None where there is no service, and so nothing that could be wrong.
        kuberays: the same of KubeRay's RayService.
        reason: of our Ready.
    """

    at: float
    served: bool
    ours: bool | None
    kuberays: bool | None
    reason: str = ""


@dataclass(frozen=True)
class Verdict:
    """Seconds of one scenario in which there was a service, and those in which a Ready was wrong."""

    seconds: int
    ours_wrong: int
    kuberays_wrong: int


def judge(samples: Sequence[Sample]) -> Verdict:
    """Count the samples in which a Ready differs from what requests have got for longer than the grace."""
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
    """Samples a user's service until cancelled; while the user is quiet, so that it can fall to zero, it is too."""

    user: User
    samples: list[Sample] = field(default_factory=list)

    async def run(self) -> None:
        """Start a sample every second, whether those before have ended or not."""
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
