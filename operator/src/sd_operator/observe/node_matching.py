# SPDX-License-Identifier: Apache-2.0
"""Decides whether a node accepts a pod, by selector, required node affinity and taints (pure).

The scheduler checks more than these three.
"""

import re
from collections.abc import Iterable, Mapping

from sd_operator.builders.placement import REQUIRED
from sd_operator.json_types import Json
from sd_operator.observe.nodes import Node

_NUMBER = re.compile(r"[+-]?[0-9]+", re.ASCII)
_LARGEST = 2**63
"""The scheduler compares numbers of 64 bits."""


def accepts(node: Node, placement: Json) -> bool:
    """Whether the node accepts a pod of this placement.

    Args:
        node: the node.
        placement: nodeSelector, affinity and tolerations as in a Pod.
    """
    selected = placement.get("nodeSelector", {}).items() <= node.labels.items()
    terms = (placement.get("affinity", {}).get("nodeAffinity", {}).get(REQUIRED) or {}).get(
        "nodeSelectorTerms"
    )
    wanted = terms is None or any(_fits(node, term) for term in terms)
    barred = any(
        taint["effect"] != "PreferNoSchedule"
        and not any(_tolerates(toleration, taint) for toleration in placement.get("tolerations", []))
        for taint in node.taints
    )
    return selected and wanted and not barred


def _fits(node: Node, term: Json) -> bool:
    """Whether the node meets a term; a term without expressions matches no node."""
    of_labels, of_fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    is_met = _meets(node.labels, of_labels) and _meets({"metadata.name": node.name}, of_fields)
    return bool(of_labels or of_fields) and is_met


def _meets(values: Mapping[str, str], expressions: Iterable[Json]) -> bool:
    return all(_holds(values.get(each["key"]), each) for each in expressions)


def _holds(value: str | None, expression: Json) -> bool:
    values = expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case _:
            return _compares(expression["operator"], _number(value), [*map(_number, values)])


def _compares(operator: str, value: int | None, bounds: list[int | None]) -> bool:
    """Gt and Lt as in the scheduler: a value that is not a whole number never matches, on either side."""
    match bounds:
        case [int(bound)] if value is not None:
            return value > bound if operator == "Gt" else value < bound
        case _:
            return False


def _number(text: str | None) -> int | None:
    if text is None or not _NUMBER.fullmatch(text):
        return None
    number = int(text) if len(text) < len(str(_LARGEST)) + 2 else _LARGEST
    return number if -_LARGEST <= number < _LARGEST else None


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in {None, taint["effect"]}:
        return False
    if toleration.get("key") not in {None, taint["key"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
