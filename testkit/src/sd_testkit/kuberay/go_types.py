# SPDX-License-Identifier: Apache-2.0
"""Convert an object to the form that KubeRay's Go types write (pure).

A client with these types rewrites the whole spec on each update.

Sources: https://github.com/ray-project/kuberay v1.7.0, ray-operator/apis/ray/v1, and k8s.io/api v0.36.0, core/v1.
`omitempty` drops zero values. A struct that is not a pointer is always written, and quantities are written in their
canonical form. A test compares this module with tests/data/kuberay-1.7.0-go-types.yaml, which holds the output of
those types.
"""

import re
from fractions import Fraction
from typing import Any

from sd_testkit.json_types import Json

_MAPS = {"labels", "annotations", "nodeSelector", "matchLabels", "rayStartParams", "headServiceAnnotations"}
_AMOUNTS = {"limits", "requests"}
_DROPPED_MAPS = (_MAPS | _AMOUNTS) - {"rayStartParams"}
_KEPT_LISTS = {"containers", "nodeSelectorTerms"}
_KEPT_TEXTS = {
    "name",
    "key",
    "topologyKey",
    "mountPath",
    "path",
    "claimName",
    "groupName",
    "gatewayClassName",
}
_DROPPED_NUMBERS = {"numOfHosts", "hostPort", "initialDelaySeconds", "periodSeconds", "timeoutSeconds"}
_DROPPED_BOOLEANS = {
    "excludeHeadPodFromServeSvc",
    "readOnly",
    "hostNetwork",
    "hostPID",
    "hostIPC",
    "stdin",
    "tty",
}
_SMALL = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_NANO = 10**9


def ray_service_as_written(ray_service: Json) -> Json:
    """Return a RayService as KubeRay's update writes it. Its status is a subresource and stays unchanged."""
    spec = _written(ray_service["spec"])
    if not spec.get("suspend"):
        spec.pop("suspend", None)  # This field is a pointer in a RayCluster, but a plain value here.
    return {**ray_service, "spec": {**spec, "rayClusterConfig": cluster_as_written(spec["rayClusterConfig"])}}


def cluster_as_written(config: Json) -> Json:
    """Return `spec.rayClusterConfig`, or the spec of a RayCluster, in the form of the Go types."""
    found: Json = _written(config)
    groups = found.get("workerGroupSpecs", [])
    for group in groups:
        group.setdefault("scaleStrategy", {})
    for group in (found["headGroupSpec"], *groups):
        _complete(group["template"])
    return found


def quantity(value: str | int) -> str:
    """Return the canonical form of an amount: the largest unit that needs no fraction.

    >>> [quantity(each) for each in ("0.5", "1024Mi", "1.5Gi", "1000000k", 4)]
    ['500m', '1Gi', '1536Mi', '1G', '4']
    """
    match = re.fullmatch(r"([0-9.]+)((?:[numkMGTPE]|[KMGTPE]i)?)", str(value))
    if match is None:
        return str(value)
    number, unit = match.groups()
    if unit in _BINARY[1:]:
        amount = Fraction(number) * 1024 ** _BINARY.index(unit)
        if amount.denominator == 1 and amount >= 1024:  # noqa: PLR2004 - below one Ki the unit is a decimal one
            return _scaled(int(amount), 1024, _BINARY)
    else:
        amount = Fraction(number) * Fraction(1000) ** (_SMALL.index(unit) - _SMALL.index(""))
    nano = -(-amount * _NANO // 1)  # Rounded up, as Kubernetes does below one billionth.
    return _scaled(int(nano), 1000, _SMALL) if nano else "0"


def _scaled(amount: int, step: int, units: tuple[str, ...]) -> str:
    index = 0
    while amount % step == 0 and index < len(units) - 1:
        amount, index = amount // step, index + 1
    return f"{amount}{units[index]}"


def _written(value: Any) -> Any:
    if isinstance(value, list):
        return [_written(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _field(key, each) for key, each in value.items() if not _is_dropped(key, each)}


def _field(key: str, value: Any) -> Any:
    if key in _MAPS:
        return dict(value)
    if key in _AMOUNTS:
        return {name: quantity(amount) for name, amount in value.items()}
    return quantity(value) if key == "sizeLimit" else _written(value)


def _is_dropped(key: str, value: Any) -> bool:
    if value is False:
        return key in _DROPPED_BOOLEANS
    if value in (None, "", []):
        return value is None or key not in _KEPT_TEXTS | _KEPT_LISTS
    return (value == 0 and key in _DROPPED_NUMBERS) or (value == {} and key in _DROPPED_MAPS)


def _complete(template: Json) -> None:
    """Add the structs that are not pointers: the Go types write them even when they are empty."""
    template.setdefault("metadata", {})
    spec = template.setdefault("spec", {})
    for container in (*spec.get("containers", []), *spec.get("initContainers", [])):
        container.setdefault("resources", {})
    for volume in spec.get("volumes", []):
        if "ephemeral" in volume:
            claim = volume["ephemeral"].setdefault("volumeClaimTemplate", {})
            claim.setdefault("metadata", {})
            claim.setdefault("spec", {}).setdefault("resources", {})
