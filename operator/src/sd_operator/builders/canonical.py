# SPDX-License-Identifier: Apache-2.0
"""Converts an object to the form in which Kubernetes' Go types write it, so that no other program rewrites it.

The API server reads and writes its own kinds through Go types. KubeRay updates a RayService through its own Go types when
it adds its finalizer. Both omit empty fields (`omitempty`) and write quantities in one form. An object in another form
would look like drift, and the operator would apply it again.
"""

import functools
import re
from fractions import Fraction
from typing import Any

from sd_operator.json_types import Json

_MAPS = {"labels", "annotations", "nodeSelector", "matchLabels"}
"""Maps with keys from users. They are kept as they are, and omitted if empty. Elsewhere an empty object has a meaning."""
_PARAMETERS = "rayStartParams"
_AMOUNTS = {"requests", "limits"}
_OPTIONAL_TEXTS = {"value", "effect"}
_OPTIONAL_BOOLEANS = {"excludeHeadPodFromServeSvc", "readOnly"}
_NANO = 10**9
_DECIMAL = ("n", "u", "m", "", "k", "M", "G", "T")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti")


def canonical(body: Json) -> Json:
    """The same object without empty optional fields, and with quantities in the form of Kubernetes."""
    found: Json = _canonical(body)
    return found


def completed(cluster: Json) -> Json:
    """The spec of a RayCluster with the empty structs that KubeRay's types always write.

    A field manager owns a list of a RayService as a whole. If KubeRay adds an empty struct to a list, it becomes the owner.

    Args:
        cluster: the spec in canonical form.
    """
    groups = [{**each, "scaleStrategy": {}} for each in cluster["workerGroupSpecs"]]
    return {
        **cluster,
        "workerGroupSpecs": [{**each, "template": _completed(each["template"])} for each in groups],
    }


def _completed(template: Json) -> Json:
    volumes = [_completed_volume(each) for each in template["spec"]["volumes"]]
    return {**template, "spec": {**template["spec"], "volumes": volumes}}


def _completed_volume(volume: Json) -> Json:
    if "ephemeral" not in volume:
        return volume
    claim = {"metadata": {}, **volume["ephemeral"]["volumeClaimTemplate"]}
    return {**volume, "ephemeral": {**volume["ephemeral"], "volumeClaimTemplate": claim}}


@functools.lru_cache(maxsize=4096)  # most services use the same amounts
def quantity(value: str | int) -> str:
    """Format an amount as Kubernetes does, in the largest unit that needs no fraction.

    >>> [quantity(each) for each in ("0.5", "1024Mi", "1.5Gi", 4)]
    ['500m', '1Gi', '1536Mi', '4']
    """
    match = re.fullmatch(r"([0-9]+(?:[.][0-9]+)?)(m|k|M|G|T|Ki|Mi|Gi|Ti)?", str(value))
    if match is None:
        return str(value)
    number, unit = Fraction(match[1]), match[2] or ""
    if unit.endswith("i"):
        amount = number * 1024 ** _BINARY.index(unit)
        if amount.denominator == 1 and amount >= 1024:  # noqa: PLR2004 - smaller amounts are written in bytes
            return _in_largest_unit(int(amount), 1024, _BINARY)
    else:
        amount = number * Fraction(1000) ** (_DECIMAL.index(unit) - _DECIMAL.index(""))
    nano = int(-(-amount * _NANO // 1))
    return _in_largest_unit(nano, 1000, _DECIMAL) if nano else "0"


def _in_largest_unit(amount: int, step: int, units: tuple[str, ...]) -> str:
    index = 0
    while amount % step == 0 and index < len(units) - 1:
        amount, index = amount // step, index + 1
    return f"{amount}{units[index]}"


def _canonical(value: Any) -> Any:
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if not isinstance(value, dict):
        return value
    return {key: _field(key, each) for key, each in value.items() if not _is_left_out(key, each)}


def _field(key: str, value: Any) -> Any:
    if key in _MAPS or key == _PARAMETERS:
        return value
    if key in _AMOUNTS:
        return {name: quantity(amount) for name, amount in value.items()}
    return quantity(value) if key == "sizeLimit" else _canonical(value)


def _is_left_out(key: str, value: Any) -> bool:
    if value is False:
        return key in _OPTIONAL_BOOLEANS
    if value == "":
        return key in _OPTIONAL_TEXTS
    return value == [] or (value == {} and key in _MAPS)
