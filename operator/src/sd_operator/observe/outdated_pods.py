# SPDX-License-Identifier: Apache-2.0
"""Finds pods that are older than the spec of their RayCluster (pure).

A new version of KubeRay rewrites existing RayClusters, spec and annotations, from their RayServices. It leaves their pods
unchanged (https://github.com/ray-project/kuberay v1.7.0, shouldUpdateCluster). The RayCluster then no longer shows what its
pods run. Older pods are therefore compared with the template that their successors will have.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sd_operator.observe.raycluster_diff import is_same_value

_VERSION = "f:ray.io/kuberay-version"
_POD_FIELDS = ("nodeSelector", "affinity", "serviceAccountName", "priorityClassName", "runtimeClassName")
_CONTAINER_FIELDS = ("image", "resources", "securityContext", "env", "volumeMounts")
_SHOWN = 3


def outdated(cluster: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> str:
    """The number of pods that differ from their successors, and the fields: `2 of 3 pods, in image`; empty if none differs.

    A field in which younger pods of the same group differ too was changed by an admission webhook, so it does not count.

    Args:
        cluster: the RayCluster.
        pods: pods of the service, including those of other clusters and components.
    """
    rewritten = _rewritten_at(cluster)
    own = [each for each in pods if _label(each, "ray.io/cluster") == cluster["metadata"]["name"]]
    found = {each["metadata"]["name"]: set(_differing(cluster, each)) for each in own}
    young = [each for each in own if each["metadata"].get("creationTimestamp", "") >= rewritten]
    old = [each for each in own if each not in young and "deletionTimestamp" not in each["metadata"]]
    changed_by_others = {
        (_label(each, "ray.io/group"), path) for each in young for path in found[each["metadata"]["name"]]
    }
    count, paths = 0, set[str]()
    for each in old:
        group = _label(each, "ray.io/group")
        left = {path for path in found[each["metadata"]["name"]] if (group, path) not in changed_by_others}
        count, paths = count + bool(left), paths | left
    if not count:
        return ""
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return f"{count} of {len(own)} pods, in {', '.join(sorted(paths)[:_SHOWN])}{more}"


def _rewritten_at(cluster: Mapping[str, Any]) -> str:
    """When KubeRay last wrote the RayCluster, UTC; empty if this is not recorded, so that every pod counts as young."""
    for entry in cluster["metadata"].get("managedFields") or []:
        annotations = entry.get("fieldsV1", {}).get("f:metadata", {}).get("f:annotations", {})
        if _VERSION in annotations:
            return str(entry.get("time") or "")
    return ""


def _differing(cluster: Mapping[str, Any], pod: Mapping[str, Any]) -> Iterator[str]:
    """Fields in which a pod differs from the template of its group; additional fields of the pod come from KubeRay."""
    template = _template(cluster, _label(pod, "ray.io/group"))
    if template is None:
        return
    for name in _POD_FIELDS:
        if not _is_in(template.get(name), pod["spec"].get(name)):
            yield name
    wanted, live = template["containers"][0], pod["spec"]["containers"][0]
    for name in _CONTAINER_FIELDS:
        if not _is_in(wanted.get(name), live.get(name)):
            yield name


def _template(cluster: Mapping[str, Any], group: str) -> Any | None:
    spec = cluster["spec"]
    if group == "headgroup":
        return spec["headGroupSpec"]["template"]["spec"]
    groups = {each["groupName"]: each for each in spec.get("workerGroupSpecs") or []}
    return groups[group]["template"]["spec"] if group in groups else None


def _is_in(wanted: Any, live: Any) -> bool:
    """Whether the live value contains the whole desired value; every item of a list must match one live item."""
    if wanted is None:
        return True
    if isinstance(wanted, Mapping) and isinstance(live, Mapping):
        return all(_is_in(value, live.get(key)) for key, value in wanted.items())
    if isinstance(wanted, list) and isinstance(live, list):
        return all(any(_is_in(item, each) for each in live) for item in wanted)
    return is_same_value(wanted, live)


def _label(pod: Mapping[str, Any], name: str) -> str:
    return str((pod["metadata"].get("labels") or {}).get(name, ""))
