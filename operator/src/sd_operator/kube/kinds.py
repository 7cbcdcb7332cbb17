# SPDX-License-Identifier: Apache-2.0
"""The kinds that the operator reads or writes, and their API paths.

A table is used instead of discovery, whose cache becomes outdated.
"""

from dataclasses import dataclass

from sd_operator.api import GROUP, KIND, PLURAL, VERSION


@dataclass(frozen=True)
class Kind:
    """A kind of object and its path in the API."""

    api_version: str
    name: str
    plural: str

    @property
    def resource(self) -> tuple[str, str, str]:
        """(group, version, plural)."""
        group, _, version = self.api_version.rpartition("/")
        return group, version, self.plural

    def path(self, namespace: str | None, name: str | None = None, subresource: str | None = None) -> str:
        """Path of an object, or of all objects in a namespace (None: in all namespaces)."""
        parts = ["apis" if "/" in self.api_version else "api", self.api_version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        parts += filter(None, (self.plural, name, subresource))
        return "/" + "/".join(parts)


SERVICE = Kind(f"{GROUP}/{VERSION}", KIND, PLURAL)
RAY_SERVICE = Kind("ray.io/v1", "RayService", "rayservices")
RAY_CLUSTER = Kind("ray.io/v1", "RayCluster", "rayclusters")
DAEMON_SET = Kind("apps/v1", "DaemonSet", "daemonsets")
DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
LEASE = Kind("coordination.k8s.io/v1", "Lease", "leases")
NETWORK_POLICY = Kind("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies")
NODE = Kind("v1", "Node", "nodes")
POD = Kind("v1", "Pod", "pods")
GATEWAY = Kind("gateway.networking.k8s.io/v1", "Gateway", "gateways")
SECRET = Kind("v1", "Secret", "secrets")
CORE_SERVICE = Kind("v1", "Service", "services")
CORE_EVENT = Kind("v1", "Event", "events")
EVENT = Kind("events.k8s.io/v1", "Event", "events")

_BY_NAME = {
    (kind.api_version, kind.name): kind
    for kind in (SERVICE, RAY_SERVICE, DAEMON_SET, DEPLOYMENT, NETWORK_POLICY, POD, SECRET, EVENT, LEASE)
}


def kind_of(body: dict[str, object]) -> Kind:
    """The kind of an object that the operator built."""
    return _BY_NAME[str(body["apiVersion"]), str(body["kind"])]
