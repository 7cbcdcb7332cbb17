# SPDX-License-Identifier: Apache-2.0
"""What a status on record says of Ray stays while Ray has not answered this process yet (pure).

No pass waits for Ray. So the first one after a start of the operator, and the first one that sees a new head, know
nothing of it. Until the answer to that poll is there, a moment later, what depends on Ray stays as it is on record. After
a start of the operator it stays for two minutes even where that poll has no answer, and says so. What the spec, KubeRay
and the pods say against it goes before: nothing delays bad news that is known.
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
"""Why a service is ready or not where Ray's answer decided that."""


class _Wait(Enum):
    """Why nothing is known of Ray: its first answer is about to come, or did not come since the operator started."""

    ANSWER = auto()
    START = auto()


@dataclass(frozen=True)
class Record:
    """The status on record, and what is observed now.

    Attributes:
        generation: of the spec that a status is computed for.
    """

    effective: EffectiveSpec
    snapshot: Snapshot
    previous: Status
    generation: int
    now: datetime

    def kept(self, states: dict[ConditionType, ConditionState]) -> dict[ConditionType, ConditionState]:
        """The same verdicts, with those on record in place of the ones that an answer of Ray decides."""
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
        """The same status, with the replicas on record."""
        before, computed = self.previous.replicas, status.replicas
        is_kept = self._wait(self._serving) is not None and self._is_same_spec and self._denied is None
        if before is None or computed is None or not is_kept:
            return status
        counts = {"ready": before.ready, "desired": before.desired, "summary": before.summary}
        return status.model_copy(update={"replicas": computed.model_copy(update=counts)})

    def _ready(self, state: ConditionState, before: ConditionState) -> ConditionState:
        wait, denial = self._wait(self._serving), self._denied
        is_asked = self.snapshot.answers is None and state.reason != Reason.SUSPENDED
        if before.status == "True":
            if state.status == "False" and is_asked:
                return before  # the service itself says so in a moment
            return self._marked(state, before, self._serving) if denial is None else state
        if wait is _Wait.ANSWER and (denial is None or denial.reason == before.reason):
            return before
        if wait is _Wait.START and denial is None and before.reason in _RAYS and self._is_same_spec:
            return self._marked(state, before, self._serving)
        return state

    def _model(self, state: ConditionState, before: ConditionState) -> ConditionState:
        wait = self._wait(self._newest)
        is_told = wait is _Wait.START and state.status == "False"  # by KubeRay, of what is wrong with it
        if self.effective.suspend or is_told or not self._is_same_spec:
            return state
        return self._marked(state, before, self._newest)

    def _config(self, state: ConditionState, before: ConditionState) -> ConditionState:
        view, wait = self.snapshot.ray_service, self._wait(self._newest)
        if view is None or not view.up_to_date or self.effective.suspend or not self._is_same_spec:
            return state
        reading = self.snapshot.serve.get(self._newest)
        if reading is not None and reading.due and state.reason == Reason.CONFIG_DIFFERS:
            # KubeRay has just handed it over; whether Ray runs it shows in a moment.
            return before if before.reason == Reason.CONFIG_PENDING else state
        is_open = state.status == "True" or state.reason == Reason.CONFIG_PENDING
        if wait is _Wait.START and not is_open:
            return state
        return self._marked(state, before, self._newest)

    def _marked(self, state: ConditionState, before: ConditionState, cluster: str) -> ConditionState:
        """What is on record, with its age once Ray did not answer at once; what KubeRay reports is not kept."""
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
    """A condition on record as a verdict; None where there is none, or one that this version does not know."""
    found: Condition | None = next((each for each in previous.conditions if each.type == kind), None)
    if found is None or found.reason not in set(Reason):
        return None
    return ConditionState(found.status, Reason(found.reason), found.message)
