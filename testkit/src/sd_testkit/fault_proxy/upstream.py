# SPDX-License-Identifier: Apache-2.0
"""The proxy's connection to the API server: address and credentials of a kubeconfig."""

import ssl
from dataclasses import dataclass
from pathlib import Path

import yaml

from sd_testkit.json_types import Json


@dataclass(frozen=True)
class Upstream:
    """An API server, and the proxy's credentials for it.

    Attributes:
        server: its URL.
        context: TLS with the proxy's certificate; None for plain HTTP.
        headers: a bearer token, if the kubeconfig uses one.
    """

    server: str
    context: ssl.SSLContext | None
    headers: dict[str, str]


def upstream(kubeconfig: Path) -> Upstream:
    """Return the current context of a kubeconfig. Its credentials must be files or a token."""
    known = yaml.safe_load(kubeconfig.read_text())
    context = _named(known, "context", known["current-context"])
    cluster, user = _named(known, "cluster", context["cluster"]), _named(known, "user", context["user"])
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
    if not cluster["server"].startswith("https"):
        return Upstream(cluster["server"], None, headers)
    tls = ssl.create_default_context(cafile=cluster["certificate-authority"])
    if "client-certificate" in user:
        tls.load_cert_chain(user["client-certificate"], user["client-key"])
    return Upstream(cluster["server"], tls, headers)


def kubeconfig_for(server: str, user: Json | None = None, authority: Path | None = None) -> str:
    """Return a kubeconfig that leads to the proxy."""
    cluster = {"server": server} | ({"certificate-authority": str(authority)} if authority else {})
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": cluster}],
            # kopf and the client treat a user without credentials as no user.
            "users": [{"name": "proxy", "user": user or {"token": "proxied"}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
    )


def _named(known: Json, kind: str, name: str) -> Json:
    found: Json = next(each[kind] for each in known[f"{kind}s"] if each["name"] == name)
    return found
