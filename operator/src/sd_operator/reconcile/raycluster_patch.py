# SPDX-License-Identifier: Apache-2.0
"""What of a desired RayCluster reaches the live one only by a patch of ours (pure).

KubeRay does not compare bounds and tolerations (`builders.fingerprint`), so a change of those alone never reaches the
live RayCluster. `replicas` and `workersToDelete` belong to Ray's autoscaler.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from sd_operator.builders.fingerprint import TOLERATIONS

Operation = dict[str, Any]


def live_patch(wanted: Mapping[str, Any], live: Mapping[str, Any]) -> list[Operation]:
    """The JSON patch that brings bounds and tolerations into a live RayCluster; empty where they are there.

    Each group is tested by its name, and each value by what it was, so that a cluster that KubeRay or someone else
    rewrote meanwhile refuses the patch as a whole. A group whose workers hold another number of replicas is left
    alone: its new bounds are meant for the new cluster.

    Args:
        wanted: `spec.rayClusterConfig` as we render it.
        live: the RayCluster.
    """
    spec = live["spec"]
    patch = list(_tolerations("/spec/headGroupSpec", wanted["headGroupSpec"], spec["headGroupSpec"]))
    by_name = {group["groupName"]: group for group in wanted["workerGroupSpecs"]}
    for index, group in enumerate(spec.get("workerGroupSpecs") or []):
        goal = by_name.get(group["groupName"])
        if goal is None or goal["rayStartParams"] != group.get("rayStartParams"):
            continue
        path = f"/spec/workerGroupSpecs/{index}"
        changes = [*_bounds(path, goal, group), *_tolerations(path, goal, group)]
        if changes:
            patch += [_test(f"{path}/groupName", group["groupName"]), *changes]
    return patch


def _bounds(path: str, goal: Any, live: Any) -> Iterator[Operation]:
    for name in ("minReplicas", "maxReplicas"):
        if live.get(name) != goal[name]:
            yield _test(f"{path}/{name}", live.get(name))
            yield {"op": "replace", "path": f"{path}/{name}", "value": goal[name]}


def _tolerations(path: str, goal: Any, live: Any) -> Iterator[Operation]:
    wanted = goal["template"]["spec"].get(TOLERATIONS) or []
    found = live["template"]["spec"].get(TOLERATIONS)
    if (found or []) == wanted:
        return
    path = f"{path}/template/spec/{TOLERATIONS}"
    if found is not None:
        yield _test(path, found)
    yield {"op": "add", "path": path, "value": wanted} if wanted else {"op": "remove", "path": path}


def _test(path: str, value: Any) -> Operation:
    return {"op": "test", "path": path, "value": value}
