# SPDX-License-Identifier: Apache-2.0
"""A warning in `ConfigApplied`: what was measured of a start does not fit the delays of the spec (pure).

What is given up sooner than it can be had again comes and goes with every lull, and each time requests wait for a
start. Nothing of it is wrong in itself, so the condition stays True.
"""

from collections.abc import Iterator
from math import ceil

from sd_operator.api.status import ColdStart, Reason
from sd_operator.observe.cold_start import RUNTIME_PHASES, of_record
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.status.condition_state import ConditionState


def delays(applied: ConditionState, start: ColdStart | None, effective: EffectiveSpec) -> ConditionState:
    """`ConfigApplied` with the warning, if there is cause.

    Args:
        applied: the condition without it.
        start: the last start of a worker; None before the first.
        effective: the delays that are in effect.
    """
    if applied.status != "True" or start is None:
        return applied
    found = list(_too_short(start, effective))
    if not found:
        return applied
    message = f"{applied.message} But the last start of a worker took {start.total_seconds:.0f} s: {'; '.join(found)}."
    return ConditionState("True", Reason.DELAYS_TOO_SHORT, message)


def _too_short(start: ColdStart, effective: EffectiveSpec) -> Iterator[str]:
    total, kept = start.total_seconds, effective.downscale_seconds + effective.idle_seconds
    seconds = of_record(start).seconds
    replica = sum(seconds.get(phase, 0.0) for phase in RUNTIME_PHASES)
    if effective.low == 0 and effective.hold_seconds < total:
        yield (
            f"a request that wakes the service is answered 503 after {effective.hold_seconds} s;"
            f" set limits.coldStartTimeoutSeconds to more than {ceil(total)}"
        )
    if effective.low == effective.high:
        return
    if effective.downscale_seconds < replica:
        yield (
            f"a replica that takes {replica:.0f} s of it to load is given up after {effective.downscale_seconds} s of low"
            f" load; set autoscaling.downscaleDelaySeconds to {ceil(replica)} or more"
        )
    if kept < total:
        yield (
            f"a worker is given up after {kept} s of low load; set autoscaling.idleWorkerSeconds to"
            f" {ceil(total) - effective.downscale_seconds} or more"
        )
