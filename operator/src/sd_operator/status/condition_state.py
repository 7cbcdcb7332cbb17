# SPDX-License-Identifier: Apache-2.0
"""A condition before it has a history: whether it holds, and why."""

from dataclasses import dataclass
from typing import Literal

from sd_operator.api.status import Reason


@dataclass(frozen=True)
class ConditionState:
    """One condition without its transition time."""

    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str
