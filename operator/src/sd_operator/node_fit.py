# SPDX-License-Identifier: Apache-2.0
"""Whether a node takes a pod, by selector, required node affinity and taints; a scheduler knows more (pure)."""

from collections.abc import Iterable, Mapping
from typing import Any

from sd_operator.builders.placement import REQUIRED
from sd_operator.nodes import Node

Json = Mapping[str, Any]


def accepts(node: Node, placement: Json) -> bool:
    """Whether the node takes a pod of this placement.

    Args:
        node: the node.
        placement: nodeSelector, affinity and tolerations as a Pod has them.
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
    fields = {"metadata.name": node.name}
    return _meets(node.labels, term.get("matchExpressions") or []) and _meets(
        fields, term.get("matchFields") or []
    )


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
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case _:
            return value is not None and int(value) < int(values[0])


def _tolerates(toleration: Json, taint: Json) -> bool:
    if toleration.get("effect") not in {None, taint["effect"]}:
        return False
    if toleration.get("key") not in {None, taint["key"]}:
        return False
    return toleration.get("operator") == "Exists" or toleration.get("value", "") == taint.get("value", "")
