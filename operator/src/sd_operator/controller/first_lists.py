# SPDX-License-Identifier: Apache-2.0
"""Lists all services and their children after a start, in batches instead of service by service.

After a start every service gets a pass, and a pass that reads for itself sends eight requests. Here up to a hundred
services share these requests. The services are listed page by page. The children of a page are found by the label with the
name of their service. One batch is in memory while the next one is read.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from itertools import groupby

from sd_operator import naming
from sd_operator.errors import KubeRayMissing, Refused
from sd_operator.json_types import Json
from sd_operator.kube import POD, SERVICE, Cluster, Kind, ListedCluster
from sd_operator.kube.watched_kinds import CHILDREN
from sd_operator.naming import Key

Objects = dict[Kind, list[Json]]

_KINDS = tuple({**{watched.kind: None for watched in CHILDREN}, POD: None})


async def batches(cluster: Cluster, namespace: str | None) -> AsyncIterator[dict[Key, Objects]]:
    """The services of a namespace (None: all namespaces) with their children, batch by batch, as new as etcd.

    A kind that is not installed, or that the operator may not list, is missing from the objects.

    Args:
        cluster: the client of the API server.
        namespace: namespace of the services.
    """
    async for page in cluster.pages(SERVICE, namespace):
        for home, services in groupby(page, key=lambda each: str(each["metadata"]["namespace"])):
            yield await _with_children(cluster, home, list(services))


def listed(
    cluster: Cluster, key: Key, objects: Objects, charge: Callable[[], Awaitable[None]]
) -> ListedCluster:
    """A client for a pass over one service of a batch.

    Args:
        cluster: the client of the API server.
        key: the service.
        objects: its objects in the batch.
        charge: awaited before the first request that the pass sends.
    """
    return ListedCluster(cluster, key.namespace, naming.everything(key.name), objects, charge)


async def _with_children(cluster: Cluster, namespace: str, services: list[Json]) -> dict[Key, Objects]:
    names = [each["metadata"]["name"] for each in services]
    selector = f"{naming.NAME_LABEL} in ({','.join(names)})"
    found = await asyncio.gather(*(_by_service(cluster, kind, namespace, selector) for kind in _KINDS))
    shown = [(kind, children) for kind, children in zip(_KINDS, found, strict=True) if children is not None]
    return {
        Key(namespace, name): {SERVICE: [service], **{kind: children[name] for kind, children in shown}}
        for name, service in zip(names, services, strict=True)
    }


async def _by_service(
    cluster: Cluster, kind: Kind, namespace: str, selector: str
) -> Mapping[str, list[Json]] | None:
    """Objects of a kind by the name of their service; None if they cannot be listed."""
    try:
        return _grouped(await cluster.list_newest(kind, namespace, selector))
    except (KubeRayMissing, Refused):
        return None  # a pass that reads this kind reports the error


def _grouped(objects: Iterable[Json]) -> Mapping[str, list[Json]]:
    grouped = defaultdict[str, list[Json]](list)
    for each in objects:
        grouped[each["metadata"]["labels"][naming.NAME_LABEL]].append(each)
    return grouped
