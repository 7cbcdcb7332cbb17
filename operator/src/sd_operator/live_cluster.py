# SPDX-License-Identifier: Apache-2.0
"""What a change of the wanted RayCluster means for the one that runs (pure).

KubeRay compares the two without bounds and tolerations: a change of those alone never reaches the live RayCluster, a
change of anything else makes a new one, and with upgrade strategy None nothing at all
(https://github.com/ray-project/kuberay v1.7.0, GenerateHashWithoutReplicasAndWorkersToDelete; kuberay#2331, #5326).
So bounds and tolerations are patched by us. `replicas` and `workersToDelete` belong to Ray's autoscaler.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from sd_operator import naming

Json = Any
Operation = dict[str, Any]

_MUTED_IN_GROUPS = ("replicas", "minReplicas", "maxReplicas", "scaleStrategy")
_TOLERATIONS = "tolerations"
_SHOWN = 3


def fingerprint(cluster: Mapping[str, Json]) -> str:
    """Equal for two configs between which KubeRay starts no new cluster.

    The RayService carries it as an annotation, which KubeRay copies to a RayCluster when it makes or rewrites it.

    Args:
        cluster: `spec.rayClusterConfig` as we render it.
    """
    heard = {
        **cluster,
        "headGroupSpec": _heard(cluster["headGroupSpec"]),
        "workerGroupSpecs": [_heard(group, _MUTED_IN_GROUPS) for group in cluster["workerGroupSpecs"]],
    }
    return hashlib.sha256(json.dumps(heard, sort_keys=True).encode()).hexdigest()[:16]


def _heard(group: Mapping[str, Json], muted: tuple[str, ...] = ()) -> Json:
    """A group without what KubeRay does not compare."""
    template = group["template"]
    pod = {key: value for key, value in template["spec"].items() if key != _TOLERATIONS}
    kept = {key: value for key, value in group.items() if key not in muted}
    return {**kept, "template": {**template, "spec": pod}}


def live_patch(wanted: Mapping[str, Json], live: Mapping[str, Json]) -> list[Operation]:
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


def runs_other_config(ray_service: Mapping[str, Json], live: Mapping[str, Json]) -> bool:
    """Whether a RayCluster was made from another config than its RayService has, bounds and tolerations aside."""
    wanted, made_from = (
        (each["metadata"].get("annotations") or {}).get(naming.CLUSTER_CONFIG_ANNOTATION)
        for each in (ray_service, live)
    )
    return None not in {wanted, made_from} and wanted != made_from


def differences(wanted: Mapping[str, Json], live: Mapping[str, Json]) -> str:
    """The first paths at which a live RayCluster has other values than are wanted, for a person."""
    found = list(_differing(wanted, live["spec"], ""))
    if not found:
        return "something that it still has"
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return ", ".join(found[:_SHOWN]) + more


def _bounds(path: str, goal: Json, live: Json) -> Iterator[Operation]:
    for name in ("minReplicas", "maxReplicas"):
        if live.get(name) != goal[name]:
            yield _test(f"{path}/{name}", live.get(name))
            yield {"op": "replace", "path": f"{path}/{name}", "value": goal[name]}


def _tolerations(path: str, goal: Json, live: Json) -> Iterator[Operation]:
    wanted = goal["template"]["spec"].get(_TOLERATIONS) or []
    found = live["template"]["spec"].get(_TOLERATIONS)
    if (found or []) == wanted:
        return
    path = f"{path}/template/spec/{_TOLERATIONS}"
    if found is not None:
        yield _test(path, found)
    yield {"op": "add", "path": path, "value": wanted} if wanted else {"op": "remove", "path": path}


def _test(path: str, value: Json) -> Operation:
    return {"op": "test", "path": path, "value": value}


def _differing(wanted: Json, live: Json, path: str) -> Iterator[str]:
    """Paths of wanted values that are not live; what a RayCluster has beyond them, KubeRay or a default put there."""
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        for key, value in wanted.items():
            if key not in {*_MUTED_IN_GROUPS, _TOLERATIONS}:
                yield from _differing(value, live.get(key), f"{path}.{key}" if path else key)
    elif isinstance(wanted, list) and isinstance(live, list) and len(wanted) == len(live):
        for item, counterpart in zip(wanted, live, strict=True):
            yield from _differing(item, counterpart, f"{path}[{_named(item)}]")
    elif not is_same_value(wanted, live):
        yield path


def _named(item: Json) -> str:
    if isinstance(item, Mapping):
        return str(item.get("groupName") or item.get("name") or item.get("key") or "")
    return str(item)


def is_same_value(wanted: Json, live: Json) -> bool:
    """Equal; or the same quantity, for KubeRay writes 0.5 as 500m."""
    if wanted == live or (wanted in ({}, []) and live is None):
        return True
    amounts = [_amount(value) for value in (wanted, live)]
    return amounts[0] is not None and amounts[0] == amounts[1]


_UNITS = {"m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12} | {
    f"{letter}i": 1024.0 ** (power + 1) for power, letter in enumerate("KMGT")
}


def _amount(value: Json) -> float | None:
    """A Kubernetes quantity as a number, None where it is none."""
    text = str(value)
    number = text.rstrip("mkKMGTi")
    try:
        return float(number) * _UNITS[text[len(number) :]]
    except (ValueError, KeyError):
        return None
