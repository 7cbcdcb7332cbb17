# SPDX-License-Identifier: Apache-2.0
"""The NetworkPolicy of all pods of a service: closed but for the flows that Ray, requests and weights need.

The dashboard takes code to run, so it is open to KubeRay and the operator alone, token or not. Hosts cannot be named in a
NetworkPolicy: the API server, which the head's autoscaler asks, and the hub that weights come from are opened by port.
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
_METRICS = 8080  # KubeRay has Ray export its metrics there
_HTTPS = 443
_REDIS = 6379
_SCHEME_PORTS = {"http": 80, "https": 443, "redis": _REDIS, "rediss": _REDIS}
_ON_THE_WAY = re.compile("HF_ENDPOINT|HTTPS?_PROXY|OTEL_EXPORTER_[A-Z0-9_]*ENDPOINT")
"""Variables that name a host which the pods have to reach."""
_KUBERAY = {"app.kubernetes.io/component": "kuberay-operator"}
_ANY_NAMESPACE: Json = {"namespaceSelector": {}}


def network_policy(resource: Resource, settings: Settings) -> Json:
    """The policy; policies add up, so a user's own may open more."""
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
                # Ray's processes talk on ports they choose.
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
    """Who may ask the dashboard; anyone where it is asked through the API server, which no selector describes."""
    if not settings.dashboard_url:
        return {}
    operator = naming.OPERATOR_LABELS
    return {
        "from": [_pods(settings.namespace, operator), _pods(settings.kuberay_namespace, _KUBERAY)],
    }


def _pods(namespace: str, labels: Mapping[str, str]) -> Json:
    """Pods of a namespace; of any where it is empty."""
    named = {"matchLabels": {"kubernetes.io/metadata.name": namespace}} if namespace else {}
    return {"namespaceSelector": named, "podSelector": {"matchLabels": dict(labels)}}


def _outward(spec: Spec, settings: Settings) -> list[int]:
    """Ports of the API server, of Redis, and of where weights come from, each once."""
    ports = [*settings.api_server_ports]
    store = spec.head.store()
    if isinstance(store, Redis):
        ports.append(_port(store.address, _REDIS))
    if any(uri.startswith("hf://") for uri in spec.weight_uris()):
        ports.append(_HTTPS)
    ports += [_port(value, _HTTPS) for name, value in spec.plain_env().items() if _ON_THE_WAY.fullmatch(name)]
    return sorted(set(ports))


def _port(address: str, otherwise: int) -> int:
    """The port of `host:port` or of a URL, or the usual one of its scheme."""
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        return parts.port or _SCHEME_PORTS.get(parts.scheme, otherwise)
    except ValueError:
        return otherwise  # not a number; whoever connects says so


def _tcp(ports: Iterable[int]) -> list[Json]:
    # The protocol is said: left to the API server's default it would seem to differ.
    return [{"port": port, "protocol": "TCP"} for port in ports]
