# SPDX-License-Identifier: Apache-2.0
"""The state of one condition: status, reason and message, without the time of its last transition."""

from dataclasses import dataclass
from typing import Literal

from sd_operator.api.status import Reason


@dataclass(frozen=True)
class ConditionState:
    """One condition without its transition time."""

    status: Literal["True", "False", "Unknown"]
    reason: Reason
    message: str
