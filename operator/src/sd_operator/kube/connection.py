# SPDX-License-Identifier: Apache-2.0
"""Which API server, and as whom: the cluster we run in, or what a kubeconfig says."""

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
    """A client of the cluster we run in, or of the one that KUBECONFIG names.

    Args:
        request_timeout_seconds: deadline of each request.
        context: context of the kubeconfig; None: the current one.
        connections: most of them at a time.

    Raises:
        ClusterUnavailable: neither names a cluster.
    """
    configuration = Configuration()
    configuration.connection_pool_maxsize = connections
    try:
        await _load(configuration, context)
    except (config.ConfigException, OSError, ValueError) as error:
        raise ClusterUnavailable(
            f"no cluster to work with: {error}; set KUBECONFIG, or run inside one"
        ) from error
    configuration.proxy = configuration.proxy or _proxy_of(configuration.host)
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as api, ServiceProxy(api) as services:
        yield Cluster(api, request_timeout_seconds, services=services)


async def default_namespace(context: str | None = None) -> str:
    """The namespace that kubectl would take: that of the context, else `default`."""
    if _inside():
        return "default"
    try:
        contexts, current = config.list_kube_config_contexts()
    except (config.ConfigException, OSError, ValueError):
        return "default"  # connecting tells what is wrong
    chosen = next((each for each in contexts if each["name"] == context), current)
    return str(chosen["context"].get("namespace") or "default")


def _proxy_of(url: str) -> str | None:
    """What the environment names as the way there; asked once, where the client would ask anew before each request."""
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
    """Before each request: the client would go on for a minute with a token that was replaced since."""
    token = Path(config.incluster_config.SERVICE_TOKEN_FILENAME).read_text().strip()
    configuration.api_key["BearerToken"] = f"Bearer {token}"
