# SPDX-License-Identifier: Apache-2.0
"""The DaemonSet that keeps images on the nodes of a worker group.

Its containers run the images themselves: the kubelet's garbage collection takes an image that no container uses
(https://kubernetes.io/docs/concepts/architecture/garbage-collection, and the `pause` trick of puller DaemonSets does not
help: https://github.com/kubernetes/kubernetes/issues/68930). It asks for no GPU and next to no CPU, so it fits beside a
worker that fills its node.
"""

import json
from typing import Any

from sd_operator import naming
from sd_operator.api import Resource, Spec, WorkerGroup
from sd_operator.builders.cache import (
    cache_mount,
    cache_security,
    cache_variables,
    cache_volume,
    is_filled_beforehand,
)
from sd_operator.builders.environment import env
from sd_operator.builders.metadata import owned_metadata
from sd_operator.builders.placement import worker_placement
from sd_operator.builders.pod import USER_ID, image, model_token, security_context
from sd_operator.builders.serve_config import runtime_config
from sd_operator.settings import Settings

Json = dict[str, Any]

SLEEP = ["sleep", "2147483647"]
"""68 years, in words that every `sleep` knows; busybox learned `infinity` late."""
TINY = {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}}

_DOWNLOADING = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}


def preload_images(spec: Spec, settings: Settings) -> tuple[str, ...]:
    """References of all images to bring along, the runtime image first."""
    return tuple(dict.fromkeys((image(spec, settings), *spec.image_preload.images)))


def preload_daemon_set(resource: Resource, settings: Settings, group: WorkerGroup) -> Json:
    """The DaemonSet of one worker group."""
    name = naming.preload(resource.name, group.name)
    selector = {
        naming.NAME_LABEL: resource.name,
        naming.COMPONENT_LABEL: f"{naming.PRELOAD}-{group.name}",
    }
    metadata = owned_metadata(resource, name)
    if resource.spec.image_preload.mode == "Required":
        seconds = str(resource.spec.image_preload.timeout_seconds)
        metadata["annotations"] = {naming.DEADLINE_ANNOTATION: seconds}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": selector},
            # All nodes at once: each pulls for itself, and nothing is served from here.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {
                "metadata": {"labels": {**naming.labels(resource.name), **selector}},
                "spec": _pod(resource, settings, group),
            },
        },
    }


def _pod(resource: Resource, settings: Settings, group: WorkerGroup) -> Json:
    spec = resource.spec
    runtime, *others = preload_images(spec, settings)
    pod: Json = {
        **_placement(spec, settings, group),
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
        "containers": [
            _container(naming.PRELOAD, runtime, spec.image.pull_policy),
            # Said outright, since for :latest the API server would choose Always.
            *(_container(f"image-{number}", each, "IfNotPresent") for number, each in enumerate(others)),
        ],
    }
    if spec.image.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image.pull_secrets]
    if is_filled_beforehand(spec):
        pod |= {**cache_security(spec, USER_ID), "volumes": [cache_volume(resource, settings)]}
        pod["containers"].append(_weights(spec, runtime))
    return pod


def _weights(spec: Spec, runtime: str) -> Json:
    """Fills the cache that workers share, then sleeps; if it cannot, the kubelet tries again with its back-off."""
    config = runtime_config(spec)
    wanted = json.dumps({"model": config["model"], "loras": config["loras"]}, sort_keys=True)
    variables = spec.plain_env() | cache_variables()
    return {
        "name": naming.WEIGHTS,
        "image": runtime,
        "imagePullPolicy": spec.image.pull_policy,
        "command": ["sh", "-c", 'python -m sd_runtime.prefetch "$0" && exec "$@"', wanted, *SLEEP],
        "env": [*env(variables), *model_token(spec)],
        "resources": _DOWNLOADING,
        "securityContext": security_context(),
        "volumeMounts": [cache_mount()],
    }


def _container(name: str, reference: str, pull_policy: str) -> Json:
    return {
        "name": name,
        "image": reference,
        "imagePullPolicy": pull_policy,
        "command": SLEEP,
        "resources": TINY,
        "securityContext": {**security_context(), "readOnlyRootFilesystem": True},
    }


def _placement(spec: Spec, settings: Settings, group: WorkerGroup) -> Json:
    """Where workers of the group run; what workers are to other pods does not count for one pod per node."""
    placement = worker_placement(spec, group)
    placement.pop("priorityClassName", None)
    nodes = {key: value for key, value in placement.pop("affinity", {}).items() if key == "nodeAffinity"}
    if nodes:
        placement["affinity"] = nodes
    if settings.preload_priority_class:
        placement["priorityClassName"] = settings.preload_priority_class
    return placement
