# SPDX-License-Identifier: Apache-2.0
"""Turns condition states into conditions with observedGeneration and lastTransitionTime (pure)."""

from collections.abc import Mapping
from datetime import datetime

from sd_operator import times
from sd_operator.api import Condition, Status
from sd_operator.api.status import ConditionType
from sd_operator.excerpts import excerpt
from sd_operator.status.condition_state import ConditionState

_MESSAGE_LIMIT = 1024


def conditions(
    states: Mapping[ConditionType, ConditionState], previous: Status, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Conditions in the order of the states; a condition whose status did not change keeps its recorded transition time."""
    before = {condition.type: condition for condition in previous.conditions}
    stamp = times.stamp(now)
    return tuple(
        Condition(
            type=kind.value,
            status=state.status,
            reason=state.reason.value,
            message=excerpt(state.message, _MESSAGE_LIMIT),
            last_transition_time=(
                before[kind].last_transition_time
                if kind in before and before[kind].status == state.status
                else stamp
            ),
            observed_generation=generation,
        )
        for kind, state in states.items()
    )
