# SPDX-License-Identifier: Apache-2.0
"""Durations in a simulated Ray cluster, and the annotations by which a test delays or changes its steps."""

from dataclasses import dataclass
from typing import Any

APPLICATION = "testkit.sdservice.dev/application"
"""Annotation of a RayService: the application status in its newest cluster, such as DEPLOY_FAILED.

The annotation overrides the config, and the model then has no replica.
"""
HOLD = "testkit.sdservice.dev/hold"
"""Annotation of a RayService: the steps to block until the annotation is removed.

Several are separated by commas.

`head`: a head that starts stays unready. `application`: an application stays DEPLOYING. `proxy`: the proxy of a head
does not start. `pass`: a pass of KubeRay hangs in its call to a head that has just died.
"""

HOSTILE = "testkit.sdservice.dev/hostile"
"""Annotation of a RayService: its pods send only malformed responses, each of them in turn.

`sd_testkit.generators.hostile` has the list.
"""


@dataclass(frozen=True)
class Pace:
    """Durations in seconds. Each is a fraction of the duration in a real cluster."""

    start: float = 0.4
    head_ready: float = 0.6
    build: float = 0.4
    replica: float = 0.4
    grace: float = 1.0
    linger: float = 2.0
    """Time for which the autoscaler keeps the pod of a deleted head. A real cluster takes a minute."""
    drain: float = 5.0
    orphan: float = 30.0
    """Time after which a worker without a head ends itself.

    In Ray it is a minute (gcs_rpc_server_reconnect_timeout_s).
    """
    drawing: float = 0.05

    looks: int = 2
    """Minimum number of rounds for a step that takes time.

    A pass of KubeRay then sees the step on a slow machine too.
    """
    probes: int = 4
    """Number of rounds until a readiness probe has noticed a proxy."""


def held(ray_service: dict[str, Any] | None, what: str) -> bool:
    """Return whether the RayService's annotation blocks a step."""
    annotations = (ray_service or {}).get("metadata", {}).get("annotations") or {}
    return what in annotations.get(HOLD, "").split(",")


def hostile(ray_service: dict[str, Any] | None) -> bool:
    """Return whether the pods of the RayService send malformed responses."""
    return HOSTILE in ((ray_service or {}).get("metadata", {}).get("annotations") or {})
