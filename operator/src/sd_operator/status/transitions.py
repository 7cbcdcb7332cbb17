# SPDX-License-Identifier: Apache-2.0
"""Verdicts become conditions: with the generation they are about, and the time of the last flip (pure)."""

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
    """Conditions in the order of the verdicts; the time of one that did not flip is that on record."""
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
