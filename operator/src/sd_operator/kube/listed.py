# SPDX-License-Identifier: Apache-2.0
"""The API server beside lists that were read from it: what they show of one service is not asked for again."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from sd_operator.json_types import Json
from sd_operator.kube.client import Cluster
from sd_operator.kube.kinds import Kind

Objects = Mapping[Kind, list[Json]]


class ListedCluster(Cluster):
    """The API server for one pass over one service.

    An object that the lists do not show may be there all the same, without its label: it is asked for by its name.

    Args:
        cluster: the API server.
        namespace: of the service.
        labels: what the lists selected.
        objects: what they showed, by kind; a kind that is missing here is asked for.
        charge: awaited before the first request, since such a pass was let through as one that sends none.
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
        """The API server without the lists."""
        return Cluster(*self.parts())

    async def get(self, kind: Kind, namespace: str, name: str) -> Json | None:
        """The object as the lists show it, else as it is now; None where there is none."""
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
        """Objects as the lists show them where they were selected by these labels or fewer, else as they are now."""
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
