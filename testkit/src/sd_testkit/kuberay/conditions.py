# SPDX-License-Identifier: Apache-2.0
"""Conditions as KubeRay stores them (pure).

The conditions are in the order of their first appearance, and their time changes when the status flips.
"""

from sd_testkit.cluster.api_server import now
from sd_testkit.json_types import Json


def set_condition(conditions: list[Json], wanted: Json) -> None:
    """Replace the condition of this type in place, or append the condition."""
    for index, known in enumerate(conditions):
        if known["type"] == wanted["type"]:
            since = known["lastTransitionTime"] if known["status"] == wanted["status"] else now()
            conditions[index] = {**wanted, "lastTransitionTime": since}
            return
    conditions.append({**wanted, "lastTransitionTime": now()})


def remove_condition(conditions: list[Json], kind: str) -> None:
    """Remove a condition, so that it can be set again as a new one."""
    conditions[:] = [each for each in conditions if each["type"] != kind]


def is_true(conditions: list[Json], kind: str) -> bool:
    """Return whether the condition exists and is True."""
    return any(each["type"] == kind and each["status"] == "True" for each in conditions)
