# SPDX-License-Identifier: Apache-2.0
"""The DaemonSet that keeps the runtime image on the nodes of a worker group.

Its container runs the image itself: the kubelet's garbage collection takes an image that no container uses.
It asks for no GPU and next to no CPU, so it fits beside a worker that fills its node.
"""

from typing import Any

from sd_operator import naming
from sd_operator.api import Resource, WorkerGroup
from sd_operator.builders.metadata import owned_metadata
from sd_operator.builders.placement import worker_placement
from sd_operator.builders.pod import image, security_context
from sd_operator.settings import Settings

COMPONENT = "preload"
_RESOURCES = {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}}


def preload_daemon_set(resource: Resource, settings: Settings, group: WorkerGroup) -> dict[str, Any]:
    """The DaemonSet of one worker group."""
    spec = resource.spec
    name = naming.preload(resource.name, group.name)
    selector = {naming.NAME_LABEL: resource.name, naming.COMPONENT_LABEL: f"{COMPONENT}-{group.name}"}
    placement = worker_placement(spec, group)
    placement.pop("priorityClassName", None)
    pod: dict[str, Any] = {
        **placement,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [
            {
                "name": "preload",
                "image": image(spec, settings),
                "imagePullPolicy": spec.image.pull_policy,
                "command": ["sleep", "infinity"],
                "resources": _RESOURCES,
                "securityContext": security_context(),
            }
        ],
    }
    if spec.image.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image.pull_secrets]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": owned_metadata(resource, name),
        "spec": {
            "selector": {"matchLabels": selector},
            # All nodes at once: each pulls for itself, and nothing is served from here.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": {**naming.labels(resource.name), **selector}}, "spec": pod},
        },
    }
