# SPDX-License-Identifier: Apache-2.0
"""Every fixed name in one place: labels, field managers, and what the runtime is called inside Ray."""

from typing import NamedTuple

FIELD_MANAGER = "sd-operator"
STATUS_FIELD_MANAGER = "sd-operator-status"
_US = "sd-operator"

NAME_LABEL = "sdservice.dev/name"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
RAY_POD_LABEL = "ray.io/is-ray-node"
COMPONENT_LABEL = "app.kubernetes.io/component"
PRELOAD = "preload"
WARM = "warm"
"""Values of the component label: `preload` on pods that keep images, `warm` on placeholders of spare workers."""
PRELOAD_LABEL = "sdservice.dev/preload"
"""On a preload DaemonSet and its pods: the key of what they keep where; all services of a namespace that want it share it."""
CLUSTER_CONFIG_ANNOTATION = "sdservice.dev/cluster-config"
"""Fingerprint of the cluster config; KubeRay copies it to the RayCluster that it makes from that config."""

OPERATOR_LABELS = {"app.kubernetes.io/name": "stable-diffusion-operator"}
"""Labels of the operator's own pods, as the Helm chart gives them."""

APPLICATION = "imagine"
INGRESS_DEPLOYMENT = "ingress"
MODEL_DEPLOYMENT = "model"
IMPORT_PATH = "sd_runtime.app:build_app"
PROXY_IMPORT_PATH = "sd_runtime.proxy:middlewares"
HEAD_RESOURCE = "sdservice-head"
"""Ray resource that only the head has; what carries it stays there."""
RAY_GROUP_LABEL = "ray.io/node-group"
"""Ray's label of a node with the group that KubeRay made it for."""
HEAD_GROUP = "headgroup"
"""KubeRay's name of the head's group."""

SERVE_PORT = 8000
MODELS_FOLDER = "/models"
CACHE_FOLDER = "/cache"
WEIGHTS = "weights"
"""The container that fills a cache which workers share; `weights-<group>` is the component label of its pods."""
COMPILE_CACHE_VARIABLE = "SDSERVICE_COMPILE_CACHE"
TOKEN_KEY = "auth_token"  # noqa: S105 - the key KubeRay reads in the Secret, not a secret


class Key(NamedTuple):
    """Identity of a resource in queues and logs."""

    namespace: str
    name: str


def labels(name: str) -> dict[str, str]:
    """Labels of every object that belongs to the service `name`."""
    return {NAME_LABEL: name, MANAGED_BY_LABEL: _US}


def everything(name: str) -> dict[str, str]:
    """The label that everything of the service carries: its children, and what KubeRay makes of them."""
    return {NAME_LABEL: name}


def token_secret(name: str) -> str:
    """Name of the Secret that holds Ray's token."""
    return f"{name}-ray-token"


def preload(key: str) -> str:
    """Name of the DaemonSet that keeps images on nodes for all services of a namespace that want the same."""
    return f"sdservice-{PRELOAD}-{key}"


def preload_labels(key: str) -> dict[str, str]:
    """Labels of that DaemonSet and of its pods: they belong to no single service."""
    return {MANAGED_BY_LABEL: _US, COMPONENT_LABEL: PRELOAD, PRELOAD_LABEL: key}


def preloads() -> dict[str, str]:
    """Labels by which the shared DaemonSets of a namespace are found."""
    return {MANAGED_BY_LABEL: _US, COMPONENT_LABEL: PRELOAD}


def weights(name: str, group: str) -> str:
    """Name of the DaemonSet that fills the cache of a worker group; at most 47 + 9 + 15 characters."""
    return f"{name}-{WEIGHTS}-{group}"


def gateway(name: str) -> str:
    """Name of the Gateway that KubeRay makes for upgrades in steps."""
    return f"{name}-gateway"


def network_policy(name: str) -> str:
    """Name of the NetworkPolicy of all pods of the service."""
    return f"{name}-pods"


def warm(name: str) -> str:
    """Name of what keeps places for spare workers."""
    return f"{name}-warm"


def serve_service(name: str) -> str:
    """Name of the Service that KubeRay makes for requests to a RayService; while they move in steps, to a RayCluster."""
    return f"{name}-serve-svc"


def serve_url(service: str, namespace: str) -> str:
    """Address inside the cluster of such a Service."""
    return f"http://{service}.{namespace}.svc:{SERVE_PORT}"
