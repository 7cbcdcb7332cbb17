# SPDX-License-Identifier: Apache-2.0
"""Connects to an API server: that of the cluster in which the process runs, or that of a kubeconfig."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from sd_operator.errors import ClusterUnavailable
from sd_operator.kube.client import Cluster
from sd_operator.kube.service_proxy import ServiceProxy


@asynccontextmanager
async def connect(
    request_timeout_seconds: float, *, context: str | None = None, connections: int = 32
) -> AsyncIterator[Cluster]:
    """A client of the cluster in which the process runs, or of the cluster in KUBECONFIG.

    Args:
        request_timeout_seconds: deadline of each request.
        context: context of the kubeconfig; None: the current one.
        connections: maximum of connections at a time.

    Raises:
        ClusterUnavailable: neither of the two names a cluster.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = connections
    try:
        await _load(configuration, context)
    except (config.ConfigException, OSError, ValueError) as error:
        raise ClusterUnavailable(
            f"no cluster is configured: {error}; set KUBECONFIG, or run inside a cluster"
        ) from error
    configuration.proxy = configuration.proxy or _proxy_of(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as api, ServiceProxy(api) as services:
        yield Cluster(api, request_timeout_seconds, services=services)


async def default_namespace(context: str | None = None) -> str:
    """The namespace that kubectl would use: that of the context, else `default`."""
    if _inside():
        return "default"
    try:
        contexts, current = config.list_kube_config_contexts()
    except (config.ConfigException, OSError, ValueError):
        return "default"  # the connection reports the error
    chosen = next((each for each in contexts if each["name"] == context), current)
    return str(chosen["context"].get("namespace") or "default")


def _proxy_of(url: str) -> str | None:
    """The proxy for this URL in the environment; read once, because the client would read it before each request."""
    parts = urlsplit(url)
    if proxy_bypass(parts.hostname or ""):
        return None
    return getproxies().get(parts.scheme)


def _inside() -> bool:
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


async def _load(configuration: Configuration, context: str | None) -> None:
    if _inside():
        config.load_incluster_config(client_configuration=configuration, try_refresh_token=False)
        configuration.refresh_api_key_hook = _read_token
    else:
        await config.load_kube_config(context=context, client_configuration=configuration)


def _read_token(configuration: Configuration) -> None:
    """Read the token before each request; the client alone would use a replaced token for another minute."""
    token = Path(config.incluster_config.SERVICE_TOKEN_FILENAME).read_text().strip()
    configuration.api_key["BearerToken"] = f"Bearer {token}"
