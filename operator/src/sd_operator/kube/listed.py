# SPDX-License-Identifier: Apache-2.0
"""A client for one pass that answers reads from lists that were read before, instead of new requests."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sd_operator.json_types import Json
from sd_operator.kube.client import Cluster
from sd_operator.kube.kinds import Kind

Objects = Mapping[Kind, list[Json]]


class ListedCluster(Cluster):
    """A client of the API server for one pass over one service.

    An object that the lists do not contain may still exist without its label, so it is requested by its name.

    Args:
        cluster: the client of the API server.
        namespace: namespace of the service.
        labels: the labels by which the lists were selected.
        objects: the listed objects by kind; a kind that is missing here is requested.
        charge: awaited before the first request, because such a pass starts without a token of the queue.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        labels: Mapping[str, str],
        objects: Objects,
        charge: Callable[[], Awaitable[None]],
    ) -> None:
        super().__init__(*cluster.parts())
        self._namespace = namespace
        self._labels = labels
        self._objects = objects
        self._charge = charge
        self._is_charged = False

    def unlisted(self) -> Cluster:
        """A client without the lists."""
        return Cluster(*self.parts())

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """The object from the lists, else the live object; None if there is none."""
        for each in self._objects.get(kind, ()):
            if namespace == self._namespace and each["metadata"]["name"] == name:
                return each
        return await super().get(kind, namespace, name)

    async def list(
        self,
        kind: Kind,
        namespace: str | None,
        labels: Mapping[str, str] | None = None,
        fields: Mapping[str, str] | None = None,
    ) -> list[Json]:
        """Objects from the lists if these were selected by the same labels or fewer; else the live objects."""
        wanted = labels or {}
        is_known = kind in self._objects and namespace == self._namespace and not fields
        if is_known and self._labels.items() <= wanted.items():
            return [each for each in self._objects[kind] if wanted.items() <= _labels(each).items()]
        return await super().list(kind, namespace, labels, fields)

    async def _send(self, *request: Any, **more: Any) -> tuple[int, Mapping[str, str], bytes]:
        if not self._is_charged:
            self._is_charged = True
            await self._charge()
        return await super()._send(*request, **more)


def _labels(live: Json) -> Mapping[str, str]:
    labels: Mapping[str, str] = live["metadata"].get("labels") or {}
    return labels
