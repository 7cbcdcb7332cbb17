# SPDX-License-Identifier: Apache-2.0
"""The desired objects of one resource, in the order in which they are applied (pure).

The token Secret is not among them. It is created once and never compared, so this module never sees a token.
"""

from sd_operator.api import Resource
from sd_operator.builders.canonical import canonical
from sd_operator.builders.network_policy import network_policy
from sd_operator.builders.preload import preload_daemon_sets, weights_daemon_sets
from sd_operator.builders.ray_service import ray_service
from sd_operator.builders.warm import warm_deployment
from sd_operator.json_types import Json
from sd_operator.settings import Settings

PRUNED_KINDS = ("DaemonSet", "Deployment", "NetworkPolicy")
"""Kinds of which a resource may have more objects than desired; own objects that are not desired are deleted."""
HELPERS = ("DaemonSet", "Deployment")
"""Kinds that a service can do without: if one is refused, the other children are still applied."""
_WITHOUT_PODS = {"Disabled", "External"}


def desired(resource: Resource, settings: Settings) -> list[Json]:
    """The desired children of the resource.

    The NetworkPolicy comes first, so that pods are never unprotected. Preload DaemonSets come next, so that pulls start
    before pods need the image.
    """
    return [
        *_network_policy(resource, settings),
        *map(canonical, _preload(resource, settings)),
        *map(canonical, _warm(resource, settings)),
        ray_service(resource, settings),
    ]


def _network_policy(resource: Resource, settings: Settings) -> list[Json]:
    return [network_policy(resource, settings)] if resource.spec.network_policy.enabled else []


def _preload(resource: Resource, settings: Settings) -> list[Json]:
    spec = resource.spec
    if spec.suspend or spec.image_preload.mode in _WITHOUT_PODS:
        return []
    return [*preload_daemon_sets(resource, settings), *weights_daemon_sets(resource, settings)]


def _warm(resource: Resource, settings: Settings) -> list[Json]:
    spec = resource.spec
    if spec.suspend or not spec.image_preload.warm_nodes:
        return []
    return [warm_deployment(resource, settings)]
