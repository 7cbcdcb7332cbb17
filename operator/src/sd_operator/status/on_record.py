# SPDX-License-Identifier: Apache-2.0
"""Keeps the recorded status of what depends on Ray until Ray has answered this process (pure).

No pass waits for Ray. The first pass after a start of the operator, and the first pass that sees a new head, have no
answer of Ray yet. Until the answer to that poll arrives, a moment later, the recorded conditions that depend on Ray stay.
After a start of the operator they stay for two minutes even if that poll has no answer, and the message states this.
What the spec, KubeRay and the pods show has priority: known bad news is never delayed.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from sd_operator import times
from sd_operator.api import Condition, Status
from sd_operator.api.status import ConditionType, Reason
from sd_operator.observe.application import UNREAD
from sd_operator.observe.effective_spec import EffectiveSpec
from sd_operator.observe.snapshot import Snapshot
from sd_operator.status.condition_state import ConditionState
from sd_operator.status.counts import serving_cluster
from sd_operator.status.ready import denied

_KEPT = timedelta(minutes=2)
_MARK = re.compile(r" \(On record when the operator started.*", re.DOTALL)
_RAYS = {
    Reason.SERVING,
    Reason.DEGRADED,
    Reason.SCALED_TO_ZERO,
    Reason.WAKING,
    Reason.NO_REPLICAS,
    Reason.APPLICATION_DEPLOYING,
    Reason.APPLICATION_FAILED,
    Reason.APPLICATION_UNHEALTHY,
    Reason.MODEL_NOT_FOUND,
    Reason.MODEL_FORBIDDEN,
    Reason.MODEL_UNAVAILABLE,
    Reason.MODEL_INVALID,
}
"""Reasons of `Ready` that depend on Ray's answer."""


class _Wait(Enum):
    """Why there is no answer of Ray: the first one is about to arrive, or none has arrived since the operator started."""

    ANSWER = auto()
    START = auto()


@dataclass(frozen=True)
class Record:
    """The recorded status together with the current snapshot.

    Attributes:
        generation: generation of the spec that a status is computed for.
    """

    effective: EffectiveSpec
    snapshot: Snapshot
    previous: Status
    generation: int
    now: datetime

    def kept(self, states: dict[ConditionType, ConditionState]) -> dict[ConditionType, ConditionState]:
        """The same condition states, with the recorded ones where Ray's answer is missing."""
        found = dict(states)
        for kind, keep in (
            (ConditionType.READY, self._ready),
            (ConditionType.MODEL_AVAILABLE, self._model),
            (ConditionType.CONFIG_APPLIED, self._config),
        ):
            before = _recorded(self.previous, kind)
            if before is not None and before != states[kind]:
                found[kind] = keep(states[kind], before)
        return found

    def counted(self, status: Status) -> Status:
        """The same status, with the recorded replica counts where Ray's answer is missing."""
        before, computed = self.previous.replicas, status.replicas
        is_kept = self._wait(self._serving) is not None and self._is_same_spec and self._denied is None
        if before is None or computed is None or not is_kept:
            return status
        counts = {"ready": before.ready, "desired": before.desired, "summary": before.summary}
        return status.model_copy(update={"replicas": computed.model_copy(update=counts)})

    def _ready(self, state: ConditionState, before: ConditionState) -> ConditionState:
        wait, denial = self._wait(self._serving), self._denied
        is_probed = self.snapshot.answers is None and state.reason != Reason.SUSPENDED
        if before.status == "True":
            if state.status == "False" and is_probed:
                return before  # the probe of the service shows it in a moment
            return self._marked(state, before, self._serving) if denial is None else state
        if wait is _Wait.ANSWER and (denial is None or denial.reason == before.reason):
            return before
        if wait is _Wait.START and denial is None and before.reason in _RAYS and self._is_same_spec:
            return self._marked(state, before, self._serving)
        return state

    def _model(self, state: ConditionState, before: ConditionState) -> ConditionState:
        wait = self._wait(self._newest)
        is_reported = (
            wait is _Wait.START and state.status == "False"
        )  # KubeRay reports a problem with the model
        if self.effective.suspend or is_reported or not self._is_same_spec:
            return state
        return self._marked(state, before, self._newest)

    def _config(self, state: ConditionState, before: ConditionState) -> ConditionState:
        view, wait = self.snapshot.ray_service, self._wait(self._newest)
        if view is None or not view.up_to_date or self.effective.suspend or not self._is_same_spec:
            return state
        reading = self.snapshot.serve.get(self._newest)
        if reading is not None and reading.due and state.reason == Reason.CONFIG_DIFFERS:
            # KubeRay has just sent the config; the next answer shows whether Ray runs it.
            return before if before.reason == Reason.CONFIG_PENDING else state
        is_open = state.status == "True" or state.reason == Reason.CONFIG_PENDING
        if wait is _Wait.START and not is_open:
            return state
        return self._marked(state, before, self._newest)

    def _marked(self, state: ConditionState, before: ConditionState, cluster: str) -> ConditionState:
        """The recorded state, with a note of its age if Ray did not answer at once; KubeRay's reports are not kept."""
        silence, wait = self.snapshot.silent.get(cluster), self._wait(cluster)
        if silence is None or wait is None:
            return state
        if wait is _Wait.ANSWER:
            return before
        if UNREAD in before.message and not _MARK.search(before.message):
            return state
        words = _MARK.sub("", before.message)
        started, unread = (
            times.stamp(silence.since),
            f"Ray's dashboard has not answered since: {silence.failure}",
        )
        return ConditionState(
            before.status,
            before.reason,
            f"{words} (On record when the operator started at {started}; {unread})",
        )

    @property
    def _denied(self) -> ConditionState | None:
        return denied(self.effective, self.snapshot, self.now)

    @property
    def _is_same_spec(self) -> bool:
        return self.previous.observed_generation == self.generation

    @property
    def _serving(self) -> str:
        return serving_cluster(self.snapshot)

    @property
    def _newest(self) -> str:
        return self.snapshot.pending or self.snapshot.active

    def _wait(self, cluster: str) -> _Wait | None:
        silence = self.snapshot.silent.get(cluster)
        if silence is None:
            return None
        if not silence.failure:
            return _Wait.ANSWER
        return _Wait.START if silence.from_start and self.now - silence.since < _KEPT else None


def _recorded(previous: Status, kind: ConditionType) -> ConditionState | None:
    """A recorded condition as a ConditionState; None if it is missing or has a reason that this version does not know."""
    found: Condition | None = next((each for each in previous.conditions if each.type == kind), None)
    if found is None or found.reason not in set(Reason):
        return None
    return ConditionState(found.status, Reason(found.reason), found.message)
