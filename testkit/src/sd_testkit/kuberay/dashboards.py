# SPDX-License-Identifier: Apache-2.0
"""Simulated dashboards for the stand-in for KubeRay.

The dashboards give the statuses that KubeRay copies from dashboard responses.
"""

import time
from typing import Any

from sd_testkit.json_types import Json
from sd_testkit.ray import Ray
from sd_testkit.ray.rest import applications


class SimulatedDashboards:
    """The dashboards of simulated Ray clusters. Calls do not pass through the network."""

    def __init__(self, ray: Ray) -> None:
        self._ray = ray

    async def applications(self, cluster: Json) -> dict[str, Json] | None:
        """Return status and message of each application and of its deployments."""
        session = self._ray.session(cluster)
        if session is None:
            return None
        details = applications(session.serve, time.time())["applications"]
        return {name: kept(each) for name, each in details.items()}

    async def deploy(self, cluster: Json, config: Json) -> None:
        """PUT a Serve config."""
        session = self._ray.session(cluster)
        if session is not None:
            session.serve.put(config, time.monotonic())

    async def has_healthy_proxy(self, pod: Json) -> bool:
        """Return whether the `/-/healthz` endpoint of a head pod answers."""
        session = self._ray.session_of(pod)
        return session is not None and session.has_proxy(pod["metadata"]["name"])


def kept(application: Json) -> Json:
    """Return the part that KubeRay copies. Empty fields are left out, as Go's omitempty does."""
    deployments = {
        name: _said(status=each["status"], message=each["message"])
        for name, each in application["deployments"].items()
    }
    return _said(
        status=application["status"],
        message=application["message"],
        serveDeploymentStatuses=deployments,
    )


def _said(**fields: Any) -> Json:
    return {name: value for name, value in fields.items() if value}
