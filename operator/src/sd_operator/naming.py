# SPDX-License-Identifier: Apache-2.0
"""All fixed names: labels, field managers, names of objects, and names of the runtime in Ray."""

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
"""Values of the component label: `preload` on preload pods, `warm` on placeholder pods for spare workers."""
PRELOAD_LABEL = "sdservice.dev/preload"
"""Label of a preload DaemonSet and its pods. Its value is a key of images and placement, which services of a namespace share."""
CLUSTER_CONFIG_ANNOTATION = "sdservice.dev/cluster-config"
"""Annotation with the fingerprint of the cluster config. KubeRay copies it to the RayCluster that it creates from this config."""

OPERATOR_LABELS = {"app.kubernetes.io/name": "stable-diffusion-operator"}
"""Labels of the operator's own pods, as the Helm chart sets them."""

APPLICATION = "imagine"
INGRESS_DEPLOYMENT = "ingress"
MODEL_DEPLOYMENT = "model"
IMPORT_PATH = "sd_runtime.app:build_app"
PROXY_IMPORT_PATH = "sd_runtime.proxy:middlewares"
HEAD_RESOURCE = "sdservice-head"
"""Ray resource of the head only. An actor that requires it runs on the head."""
RAY_GROUP_LABEL = "ray.io/node-group"
"""Ray's node label with the name of the node's group in KubeRay."""
HEAD_GROUP = "headgroup"
"""Name of the head's group in KubeRay."""

SERVE_PORT = 8000
MODELS_FOLDER = "/models"
CACHE_FOLDER = "/cache"
WEIGHTS = "weights"
"""Container that fills a shared cache with weights. The component label of its pods is `weights-<group>`."""
COMPILE_CACHE_VARIABLE = "SDSERVICE_COMPILE_CACHE"
TOKEN_KEY = "auth_token"  # noqa: S105 - the key KubeRay reads in the Secret, not a secret


class Key(NamedTuple):
    """Identity of a resource in queues and logs."""

    namespace: str
    name: str


def labels(name: str) -> dict[str, str]:
    """Labels of every object of the service `name`."""
    return {NAME_LABEL: name, MANAGED_BY_LABEL: _US}


def everything(name: str) -> dict[str, str]:
    """The label of all objects of a service, including the objects that KubeRay creates."""
    return {NAME_LABEL: name}


def token_secret(name: str) -> str:
    """Name of the Secret with Ray's token."""
    return f"{name}-ray-token"


def preload(key: str) -> str:
    """Name of the DaemonSet that keeps images on nodes, shared by the services of a namespace with the same key."""
    return f"sdservice-{PRELOAD}-{key}"


def preload_labels(key: str) -> dict[str, str]:
    """Labels of a shared preload DaemonSet and of its pods. They contain no name of a service."""
    return {MANAGED_BY_LABEL: _US, COMPONENT_LABEL: PRELOAD, PRELOAD_LABEL: key}


def preloads() -> dict[str, str]:
    """Labels that select the shared preload DaemonSets of a namespace."""
    return {MANAGED_BY_LABEL: _US, COMPONENT_LABEL: PRELOAD}


def weights(name: str, group: str) -> str:
    """Name of the DaemonSet that fills the cache of a worker group. It has at most 47 + 9 + 15 characters."""
    return f"{name}-{WEIGHTS}-{group}"


def gateway(name: str) -> str:
    """Name of the Gateway that KubeRay creates for Incremental upgrades."""
    return f"{name}-gateway"


def network_policy(name: str) -> str:
    """Name of the NetworkPolicy for all pods of the service."""
    return f"{name}-pods"


def warm(name: str) -> str:
    """Name of the Deployment of placeholder pods for spare workers."""
    return f"{name}-warm"


def serve_service(name: str) -> str:
    """Name of the Service for requests to a RayService, or to a RayCluster during an Incremental upgrade."""
    return f"{name}-serve-svc"


def serve_url(service: str, namespace: str) -> str:
    """URL of such a Service inside the cluster."""
    return f"http://{service}.{namespace}.svc:{SERVE_PORT}"
