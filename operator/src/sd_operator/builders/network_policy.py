# SPDX-License-Identifier: Apache-2.0
"""Builds the NetworkPolicy for all pods of a service. It allows only the traffic of Ray, requests and downloads.

Ray's dashboard executes code that it receives. So it is open only to KubeRay and the operator, even though it needs a
token. A NetworkPolicy cannot contain host names. So the API server (for the head's autoscaler) and the hub (for weights)
are opened by port.
"""

import re
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from sd_operator import naming
from sd_operator.api import Redis, Resource, Spec
from sd_operator.builders.metadata import owned_metadata
from sd_operator.json_types import Json
from sd_operator.settings import Settings

API_VERSION = "networking.k8s.io/v1"
KIND = "NetworkPolicy"

_DNS = 53
_DASHBOARD = 8265
_METRICS = 8080  # KubeRay configures Ray to export its metrics on this port
_HTTPS = 443
_REDIS = 6379
_SCHEME_PORTS = {"http": 80, "https": 443, "redis": _REDIS, "rediss": _REDIS}
_HOST_VARIABLES = re.compile("HF_ENDPOINT|HTTPS?_PROXY|OTEL_EXPORTER_[A-Z0-9_]*ENDPOINT")
"""Variables with the address of a host that the pods must reach."""
_KUBERAY = {"app.kubernetes.io/component": "kuberay-operator"}
_ANY_NAMESPACE: Json = {"namespaceSelector": {}}


def network_policy(resource: Resource, settings: Settings) -> Json:
    """The NetworkPolicy. Policies are additive, so a policy of a user can allow more."""
    spec = resource.spec
    own = {"podSelector": {"matchLabels": naming.everything(resource.name)}}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": owned_metadata(resource, naming.network_policy(resource.name)),
        "spec": {
            **own,
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                # Ray's processes communicate on ports that they choose at random.
                {"from": [own]},
                {"ports": _tcp([naming.SERVE_PORT])},
                {"ports": _tcp([_DASHBOARD]), **_dashboard_peers(settings)},
                {"ports": _tcp([_METRICS]), "from": [_ANY_NAMESPACE]},
            ],
            "egress": [
                {"to": [own]},
                {"ports": [{"port": _DNS, "protocol": "UDP"}, *_tcp([_DNS])]},
                {"ports": _tcp(_outward(spec, settings))},
            ],
        },
    }


def _dashboard_peers(settings: Settings) -> Json:
    """Peers for the dashboard. Access through the API server needs any peer, because no selector matches the API server."""
    if not settings.dashboard_url:
        return {}
    operator = naming.OPERATOR_LABELS
    return {
        "from": [_pods(settings.namespace, operator), _pods(settings.kuberay_namespace, _KUBERAY)],
    }


def _pods(namespace: str, labels: Mapping[str, str]) -> Json:
    """Pods in a namespace; in any namespace if `namespace` is empty."""
    named = {"matchLabels": {"kubernetes.io/metadata.name": namespace}} if namespace else {}
    return {"namespaceSelector": named, "podSelector": {"matchLabels": dict(labels)}}


def _outward(spec: Spec, settings: Settings) -> list[int]:
    """Ports of the API server, of Redis and of the sources of weights, each once."""
    ports = [*settings.api_server_ports]
    store = spec.head.store()
    if isinstance(store, Redis):
        ports.append(_port(store.address, _REDIS))
    if any(uri.startswith("hf://") for uri in spec.weight_uris()):
        ports.append(_HTTPS)
    ports += [
        _port(value, _HTTPS) for name, value in spec.plain_env().items() if _HOST_VARIABLES.fullmatch(name)
    ]
    return sorted(set(ports))


def _port(address: str, otherwise: int) -> int:
    """The port of `host:port` or of a URL; otherwise the default port of its scheme."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        return parts.port or _SCHEME_PORTS.get(parts.scheme, otherwise)
    except ValueError:
        return otherwise  # the port is not a number; the client reports the error


def _tcp(ports: Iterable[int]) -> list[Json]:
    # The protocol is the API server's default. Without it, the live object would differ from the desired one.
    return [{"port": port, "protocol": "TCP"} for port in ports]
