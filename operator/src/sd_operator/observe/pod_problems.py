# SPDX-License-Identifier: Apache-2.0
"""What keeps a pod from running, in the words of whoever refuses it: scheduler, registry, kubelet, quota (pure).

Words that differ between two tries and mean the same are cut off, so that a status that says the same is not
written again: the alternation of ErrImagePull and ImagePullBackOff, and the random names of refused pods.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from sd_operator import times
from sd_operator.api.status import Reason
from sd_operator.excerpts import ending
from sd_operator.json_types import Json

_PULL = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "RegistryUnavailable"}
_SETUP = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_BACK_OFF = re.compile(r'^Back-off pulling image "[^"]*"(: ErrImagePull)?:? ?')
# What the scheduler's later plugins add is one sentence of its own: `no new claims to deallocate, preemption: 0/3 nodes ...`.
_PREEMPTION = re.compile(r"(?:(?<=[.!?])\s+(?:[^.!?]*,\s*)?|[,;\s]*)preemption: .*", re.DOTALL)
_FORBIDDEN = re.compile(r".*? is forbidden: ", re.DOTALL)
_ENDED = re.compile(r"ExitCode:(?P<code>\d+).*?Reason:(?P<reason>\w*)")
_LOOP_DEATHS = 2
_ENDING_LIMIT = 300  # of what a container wrote before it ended
_LOOP_WINDOW = timedelta(minutes=10)


@dataclass(frozen=True)
class PodProblem:
    """One thing in the way.

    Attributes:
        reason: its kind, as conditions name it.
        subject: the pod or cluster it happens to, such as `worker pod a-b-c of group gpu`.
        words: what was said about it.
        since: since when, UTC; empty where nothing tells.
    """

    reason: Reason
    subject: str
    words: str
    since: str = ""

    def started(self) -> datetime:
        """`since` as a time; it must be known."""
        return times.parsed(self.since)

    def __str__(self) -> str:
        """Return `worker pod a-b-c of group gpu, since 2026-01-01T00:00:00Z: 0/3 nodes are available`."""
        since = f", since {self.since}" if self.since else ""
        return f"{self.subject}{since}: {self.words}"


def of_pod(live: Json) -> PodProblem | None:
    """What keeps this pod from running, None where nothing does."""
    status = live.get("status") or {}
    subject = _subject(live["metadata"])
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    scheduled = conditions.get("PodScheduled", {})
    since = scheduled.get("lastTransitionTime", "")
    if scheduled.get("reason") == "Unschedulable" and scheduled.get("status") == "False":
        words = _PREEMPTION.sub("", scheduled.get("message", "")).strip() or "no node fits"
        return PodProblem(Reason.UNSCHEDULABLE, subject, words, since)
    containers = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return next(filter(None, (of_container(each, subject, since) for each in containers)), None)


def of_cluster(live: Json) -> PodProblem | None:
    """What keeps KubeRay from creating the pods of this RayCluster: a quota, a policy."""
    conditions = {each["type"]: each for each in (live.get("status") or {}).get("conditions", [])}
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") != "True" or not failure.get("reason", "").startswith("FailedCreate"):
        return None
    words = failure.get("message", "").removeprefix(failure["reason"]).strip()
    subject = f"a {'head' if 'Head' in failure['reason'] else 'worker'} pod of {live['metadata']['name']}"
    return _refusal(subject, words, failure.get("lastTransitionTime", ""))


def of_refused_pods(events: Iterable[Json], subject: str) -> PodProblem | None:
    """What keeps a controller from creating pods, by its last Event of that; None where there is none.

    Args:
        events: Events about the controller's object.
        subject: which pods.
    """
    failures = sorted(
        (times.of_event(each), each.get("message", ""))
        for each in events
        if each.get("reason") == "FailedCreate"
    )
    return _refusal(subject, failures[-1][1].removeprefix("Error creating: "), "") if failures else None


def _refusal(subject: str, words: str, since: str) -> PodProblem:
    reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in words else Reason.PODS_REFUSED
    return PodProblem(reason, subject, without_name(words), since)


def without_name(words: str) -> str:
    """The API server's words without the name of the pod that it forbids, which is another one at each try."""
    return _FORBIDDEN.sub("", words)


def of_events(events: Iterable[Json], now: datetime) -> PodProblem | None:
    """Ray pods that end again and again: they never restart, KubeRay deletes and re-creates them and says so."""
    deaths = sorted(
        (times.of_event(each), each.get("message", ""))
        for each in events
        if each.get("reason") in {"DeletedHeadPod", "DeletedWorkerPod"}
        and "Failed" in each.get("message", "")
    )
    recent = [(at, message) for at, message in deaths if at and now - times.parsed(at) < _LOOP_WINDOW]
    if len(recent) < _LOOP_DEATHS:
        return None
    ended = _ENDED.search(recent[-1][1])
    how = (
        f"last with {ended['reason'] or 'Error'} (exit code {ended['code']})"
        if ended
        else "last without a code"
    )
    part = "head" if "head Pod" in recent[-1][1] else "worker"
    words = f"{len(recent)} ended within {_LOOP_WINDOW.seconds // 60} minutes, {how}"
    return PodProblem(Reason.CRASH_LOOPING, f"{part} pods", words, recent[0][0])


def of_container(container: Json, subject: str, since: str) -> PodProblem | None:
    """What keeps one container from running.

    Args:
        container: its status in the pod.
        subject: whose it is.
        since: since when it could run.
    """
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason, words = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULL:
        said = _BACK_OFF.sub("", words).strip() or "the registry's words are in the pod's events"
        return PodProblem(Reason.IMAGE_PULL_FAILED, subject, f"image {container['image']}: {said}", since)
    if reason in _SETUP:
        return PodProblem(Reason.CONTAINER_REFUSED, subject, words or reason, since)
    last = (container.get("lastState") or {}).get("terminated") or {}
    if reason == "CrashLoopBackOff":
        return PodProblem(Reason.CRASH_LOOPING, subject, _ending(container, last), since)
    if ended and ended.get("exitCode", 0) != 0:
        return PodProblem(
            Reason.CRASH_LOOPING, subject, _ending(container, ended), ended.get("finishedAt", since)
        )
    return None


def _ending(container: Json, ended: Json) -> str:
    code = ended.get("exitCode", "unknown")
    words = ending(" ".join(ended.get("message", "").split()), _ENDING_LIMIT)
    how = f"container {container['name']} ended with {ended.get('reason', 'Error')} (exit code {code})"
    return f"{how}: {words}" if words else how


def _subject(metadata: Json) -> str:
    labels = metadata.get("labels") or {}
    kind = labels.get("ray.io/node-type")
    if kind == "worker":
        return f"worker pod {metadata['name']} of group {labels.get('ray.io/group', '')}"
    return f"{kind} pod {metadata['name']}" if kind else f"pod {metadata['name']}"
