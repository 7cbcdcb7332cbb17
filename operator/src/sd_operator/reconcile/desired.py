# SPDX-License-Identifier: Apache-2.0
"""All objects we want for one resource, in the order they are applied (pure).

The token Secret is not among them: it is created once and never compared, so no token passes through here.
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
"""Kinds of which a resource may want fewer than it has; what is ours and not desired is deleted."""
HELPERS = ("DaemonSet", "Deployment")
"""Kinds that a service serves without: where one is refused, the rest goes on."""
_WITHOUT_PODS = {"Disabled", "External"}


def desired(resource: Resource, settings: Settings) -> list[Json]:
    """The children of the resource.

    What closes the pods comes before them; preload next, so that pulls start before pods ask for the image.
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
