# SPDX-License-Identifier: Apache-2.0
"""How long things take in a simulated Ray cluster, and what a test can hold back."""

from dataclasses import dataclass
from typing import Any

APPLICATION = "testkit.sdservice.dev/application"
"""Annotation of a RayService: what becomes of the application in its newest cluster, such as DEPLOY_FAILED, whatever the
config says; the model has no replica then."""
HOLD = "testkit.sdservice.dev/hold"
"""Annotation of a RayService: what waits until it is taken away; several are separated by commas.

`head`: a head that starts stays unready. `application`: an application stays DEPLOYING. `proxy`: the proxy of a head
does not start. `pass`: a pass of KubeRay hangs in its call to a head that has just died.
"""

HOSTILE = "testkit.sdservice.dev/hostile"
"""Annotation of a RayService: its pods answer nothing but misbehaviours (`sd_testkit.generators.hostile`), each of them in turn."""


@dataclass(frozen=True)
class Pace:
    """Seconds, each a fraction of what a real cluster takes."""

    start: float = 0.4
    head_ready: float = 0.6
    build: float = 0.4
    replica: float = 0.4
    grace: float = 1.0
    linger: float = 2.0
    """How long the autoscaler keeps the pod of a deleted head; a minute of Ray's."""
    drain: float = 5.0
    orphan: float = 30.0
    """A worker whose head is gone ends itself after these: a minute of Ray's, gcs_rpc_server_reconnect_timeout_s."""
    drawing: float = 0.05

    looks: int = 2
    """Rounds that whatever takes time lasts at least, so that a pass of KubeRay sees it on a slow machine too."""
    probes: int = 4
    """Rounds until a readiness probe has noticed a proxy."""


def held(ray_service: dict[str, Any] | None, what: str) -> bool:
    """Whether the RayService's annotation holds it back."""
    annotations = (ray_service or {}).get("metadata", {}).get("annotations") or {}
    return what in annotations.get(HOLD, "").split(",")


def hostile(ray_service: dict[str, Any] | None) -> bool:
    """Whether the pods of the RayService misbehave."""
    return HOSTILE in ((ray_service or {}).get("metadata", {}).get("annotations") or {})
