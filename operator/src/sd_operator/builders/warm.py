# SPDX-License-Identifier: Apache-2.0
"""Builds the placeholder pods that reserve capacity for spare workers. Their priority is low, so any worker evicts them.

A placeholder requests the same resources as a worker of the first group. So a node autoscaler keeps this capacity, and
adds it again after a worker has taken it
(https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption).
"""

from sd_operator import naming
from sd_operator.api import Resource
from sd_operator.api.capacity import gpus_per_worker
from sd_operator.builders.metadata import owned_metadata
from sd_operator.builders.placement import worker_placement
from sd_operator.builders.pod import image, security_context
from sd_operator.builders.preload import SLEEP
from sd_operator.json_types import Json
from sd_operator.settings import Settings


def warm_deployment(resource: Resource, settings: Settings) -> Json:
    """The Deployment of the placeholder pods."""
    selector = {naming.NAME_LABEL: resource.name, naming.COMPONENT_LABEL: naming.WARM}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": owned_metadata(resource, naming.warm(resource.name)),
        "spec": {
            "replicas": resource.spec.image_preload.warm_nodes,
            "selector": {"matchLabels": selector},
            # No surge during an update, because an additional placeholder could add a node.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": "100%"}},
            "template": {
                "metadata": {"labels": {**naming.labels(resource.name), **selector}},
                "spec": _pod(resource, settings),
            },
        },
    }


def _pod(resource: Resource, settings: Settings) -> Json:
    spec = resource.spec
    group = spec.worker_groups[0]
    amounts = {"cpu": str(group.resources.cpu), "memory": str(group.resources.memory)}
    if gpus := gpus_per_worker(spec, group):
        amounts[spec.gpu_resource_name] = str(gpus)
    container: Json = {
        "name": naming.WARM,
        "image": settings.warm_image or image(spec, settings),
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": {**security_context(), "readOnlyRootFilesystem": True},
    }
    if not settings.warm_image:
        container["command"] = SLEEP
    pod: Json = {
        **worker_placement(spec, group),
        "priorityClassName": settings.warm_priority_class,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,  # a worker waits until the evicted pod is gone
        "containers": [container],
    }
    if spec.image.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image.pull_secrets]
    return pod
