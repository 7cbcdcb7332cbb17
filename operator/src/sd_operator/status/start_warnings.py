# SPDX-License-Identifier: Apache-2.0
"""A warning in `ConfigApplied`: the measured start of a worker is longer than the delays of the spec (pure).

A replica or worker that is removed sooner than it can start again is replaced after each lull, and requests wait for
every start. The configuration itself is valid, so the condition stays True.
"""

from collections.abc import Iterator
from math import ceil

from sd_operator.api.status import ColdStart, Reason
from sd_operator.observe.cold_start import RUNTIME_PHASES, of_record
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.status.condition_state import ConditionState


def delays(applied: ConditionState, start: ColdStart | None, effective: EffectiveSpec) -> ConditionState:
    """`ConfigApplied` with a warning if a delay of the spec is shorter than the last start of a worker.

    Args:
        applied: the condition without the warning.
        start: the last start of a worker; None before the first.
        effective: the delays in effect.
    """
    if applied.status != "True" or start is None:
        return applied
    found = list(_too_short(start, effective))
    if not found:
        return applied
    message = (
        f"{applied.message} The last start of a worker took {start.total_seconds:.0f} s. {' '.join(found)}"
    )
    return ConditionState("True", Reason.DELAYS_TOO_SHORT, message)


def _too_short(start: ColdStart, effective: EffectiveSpec) -> Iterator[str]:
    total, kept = start.total_seconds, effective.downscale_seconds + effective.idle_seconds
    seconds = of_record(start).seconds
    replica = sum(seconds.get(phase, 0.0) for phase in RUNTIME_PHASES)
    if effective.low == 0 and effective.hold_seconds < total:
        yield (
            f"A request that wakes the service is answered with 503 after {effective.hold_seconds} s."
            f" Set limits.coldStartTimeoutSeconds to more than {ceil(total)}."
        )
    if effective.low == effective.high:
        return
    if effective.downscale_seconds < replica:
        yield (
            f"A replica needs {replica:.0f} s of this to load, but is removed after {effective.downscale_seconds} s of low"
            f" load. Set autoscaling.downscaleDelaySeconds to {ceil(replica)} or more."
        )
    if kept < total:
        yield (
            f"A worker is removed after {kept} s of low load. Set autoscaling.idleWorkerSeconds to"
            f" {ceil(total) - effective.downscale_seconds} or more."
        )
