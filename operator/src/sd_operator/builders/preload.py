# SPDX-License-Identifier: Apache-2.0
"""Builds the DaemonSets that keep images on the nodes of worker groups, and the DaemonSets that fill caches there.

A container runs each image, because the kubelet's garbage collection removes images that no container uses
(https://kubernetes.io/docs/concepts/architecture/garbage-collection; the `pause` trick of puller DaemonSets does not
help: https://github.com/kubernetes/kubernetes/issues/68930). The container requests no GPU and almost no CPU, so it fits
beside a worker that fills its node.

All services of a namespace with the same images on the same nodes share one DaemonSet. Its name is a hash of images and
placement. Otherwise a hundred services would take a hundred of the 110 pods of a node. A new image gets a new DaemonSet, so
that the former DaemonSet stays while its image is in use. A cache belongs to one service, and so does the DaemonSet that
fills it.
"""

import hashlib
import json
from collections.abc import Iterable

from sd_operator import naming
from sd_operator.api import Resource, Spec, WorkerGroup
from sd_operator.api.capacity import gpus_per_worker
from sd_operator.builders.cache import (
    cache_mount,
    cache_security,
    cache_variables,
    cache_volume,
    is_filled_beforehand,
)
from sd_operator.builders.environment import env
from sd_operator.builders.metadata import owned_metadata, user_reference
from sd_operator.builders.placement import REQUIRED, on_gpu_nodes, selects_nodes, worker_placement
from sd_operator.builders.pod import USER_ID, image, model_token, security_context
from sd_operator.builders.serve_config import runtime_config
from sd_operator.json_types import Json
from sd_operator.settings import Settings

SLEEP = ["sleep", "2147483647"]
"""Sleep for 68 years. Every `sleep` accepts a number; old versions of busybox do not accept `infinity`."""
TINY = {"requests": {"cpu": "1m", "memory": "8Mi"}, "limits": {"memory": "32Mi"}}

_FETCHED = "/tmp/fetched"  # noqa: S108 - a private file of the container
_FETCH = f'python -m sd_runtime.prefetch "$0" && touch {_FETCHED} && exec "$@"'
_DOWNLOADING = {"requests": {"cpu": "10m", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}
_WHERE = ("nodeSelector", "tolerations", "affinity", "runtimeClassName")


def preload_images(spec: Spec, settings: Settings) -> tuple[str, ...]:
    """References of all images to preload, the runtime image first."""
    return tuple(dict.fromkeys((image(spec, settings), *spec.image_preload.images)))


def preload_daemon_sets(resource: Resource, settings: Settings) -> list[Json]:
    """The shared DaemonSets of a service, one for each placement. Other services that share them are not considered."""
    spec = resource.spec
    placements = (_of_group(spec, group, settings) for group in spec.worker_groups)
    built = (_daemon_set(resource, settings, each) for each in placements if each is not None)
    return list({body["metadata"]["name"]: body for body in built}.values())


def weights_daemon_sets(resource: Resource, settings: Settings) -> list[Json]:
    """The DaemonSets that fill the cache of a service in advance, one per worker group; empty if no cache must be filled."""
    spec = resource.spec
    if not is_filled_beforehand(spec):
        return []
    placed = ((group, _of_group(spec, group, settings)) for group in spec.worker_groups)
    return [
        _weights_daemon_set(resource, settings, group, where) for group, where in placed if where is not None
    ]


def brings_images(spec: Spec) -> bool:
    """Whether preload pods pull images for any worker group."""
    if spec.image_preload.mode in {"Disabled", "External"}:
        return False
    return any(_of_group(spec, group, None) is not None for group in spec.worker_groups)


def relies_on_gpu_labels(spec: Spec) -> bool:
    """Whether a worker group selects no nodes, so that its images are preloaded on nodes with labels of GPU nodes."""
    return any(
        gpus_per_worker(spec, group) and not selects_nodes(worker_placement(spec, group))
        for group in spec.worker_groups
    )


def preload_placement(
    worker: Json, resource: str, settings: Settings | None, *, anywhere: bool
) -> Json | None:
    """Placement of the preload pods for workers; None: no preload.

    If the workers select nodes, it is these nodes. If they select none, it is all GPU nodes. For workers without GPUs and
    selector there is no preload, unless `anywhere` is set. Preferences and pod affinity of the workers are ignored.

    Args:
        worker: the worker's nodeSelector, affinity and other fields, as in a Pod.
        resource: name of the GPU resource that a worker requests; empty: none.
        settings: settings with additional labels of GPU nodes; None: no additional labels.
        anywhere: for workers without GPUs and selector, preload on every node whose taints they tolerate.
    """
    where = {key: worker[key] for key in _WHERE if worker.get(key)}
    required = (where.pop("affinity", {}).get("nodeAffinity") or {}).get(REQUIRED)
    if required:
        where["affinity"] = {"nodeAffinity": {REQUIRED: required}}
    if selects_nodes(where):
        return where
    if resource:
        return on_gpu_nodes(where, resource, settings.gpu_node_labels if settings else ())
    return where if anywhere else None


def _of_group(spec: Spec, group: WorkerGroup, settings: Settings | None) -> Json | None:
    resource = spec.gpu_resource_name if gpus_per_worker(spec, group) else ""
    anywhere = spec.image_preload.mode == "Required"
    return preload_placement(worker_placement(spec, group), resource, settings, anywhere=anywhere)


def _daemon_set(resource: Resource, settings: Settings, where: Json) -> Json:
    spec = resource.spec
    secrets = [secret.name for secret in spec.image.pull_secrets]
    key = _key(preload_images(spec, settings), spec.image.pull_policy, secrets, where)
    labels = naming.preload_labels(key)
    metadata: Json = {"name": naming.preload(key), "namespace": resource.namespace, "labels": labels}
    if resource.uid:
        metadata["ownerReferences"] = [user_reference(resource)]
    return _object(metadata, {naming.PRELOAD_LABEL: key}, labels, _image_pod(spec, settings, where))


def _key(images: Iterable[str], pull_policy: str, secrets: Iterable[str], where: Json) -> str:
    """A short hash of everything that two services must have in common to share a DaemonSet."""
    shared = json.dumps([list(images), pull_policy, list(secrets), where], sort_keys=True)
    return hashlib.sha256(shared.encode()).hexdigest()[:10]


def _weights_daemon_set(resource: Resource, settings: Settings, group: WorkerGroup, where: Json) -> Json:
    spec = resource.spec
    component = f"{naming.WEIGHTS}-{group.name}"
    selector = {naming.NAME_LABEL: resource.name, naming.COMPONENT_LABEL: component}
    pod = {
        **_pod(spec, settings, where),
        **cache_security(spec, USER_ID),
        "volumes": [cache_volume(resource, settings)],
        "containers": [_weights(spec, image(spec, settings))],
    }
    metadata = owned_metadata(resource, naming.weights(resource.name, group.name))
    return _object(metadata, selector, {**naming.labels(resource.name), **selector}, pod)


def _object(metadata: Json, selector: dict[str, str], labels: dict[str, str], pod: Json) -> Json:
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": selector},
            # Update all nodes at once: each node pulls for itself, and these pods serve no requests.
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "100%"}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _image_pod(spec: Spec, settings: Settings, where: Json) -> Json:
    runtime, *others = preload_images(spec, settings)
    return {
        **_pod(spec, settings, where),
        "containers": [
            _container(naming.PRELOAD, runtime, spec.image.pull_policy),
            # The pull policy is explicit, because for :latest the API server would choose Always.
            *(_container(f"image-{number}", each, "IfNotPresent") for number, each in enumerate(others)),
        ],
    }


def _pod(spec: Spec, settings: Settings, where: Json) -> Json:
    """The pod without its containers. Pod affinity of the workers is ignored, because there is one pod per node."""
    pod: Json = {
        **where,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 0,
    }
    if settings.preload_priority_class:
        pod["priorityClassName"] = settings.preload_priority_class
    if spec.image.pull_secrets:
        pod["imagePullSecrets"] = [{"name": secret.name} for secret in spec.image.pull_secrets]
    return pod


def _weights(spec: Spec, runtime: str) -> Json:
    """The container that fills a shared cache and then sleeps. After a failure the kubelet restarts it with back-off."""
    config = runtime_config(spec)
    sources = json.dumps({"model": config["model"], "loras": config["loras"]}, sort_keys=True)
    variables = spec.plain_env() | cache_variables()
    return {
        "name": naming.WEIGHTS,
        "image": runtime,
        "imagePullPolicy": spec.image.pull_policy,
        "command": ["sh", "-c", _FETCH, sources, *SLEEP],
        # Ready when the weights are complete. After a failure, the last line of the log has the reason.
        "readinessProbe": {"exec": {"command": ["test", "-e", _FETCHED]}, "periodSeconds": 2},
        "terminationMessagePolicy": "FallbackToLogsOnError",
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
