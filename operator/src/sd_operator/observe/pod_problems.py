# SPDX-License-Identifier: Apache-2.0
"""Finds the problem that keeps a pod from running, with the message of scheduler, registry, kubelet or quota (pure).

Parts of a message that differ between two tries and mean the same are removed, so that an unchanged status is not written
again. Examples are the alternation of ErrImagePull and ImagePullBackOff, and the random names of refused pods.
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
# Later plugins of the scheduler add a separate sentence: `no new claims to deallocate, preemption: 0/3 nodes ...`.
_PREEMPTION = re.compile(r"(?:(?<=[.!?])\s+(?:[^.!?]*,\s*)?|[,;\s]*)preemption: .*", re.DOTALL)
_FORBIDDEN = re.compile(r".*? is forbidden: ", re.DOTALL)
_ENDED = re.compile(r"ExitCode:(?P<code>\d+).*?Reason:(?P<reason>\w*)")
_LOOP_DEATHS = 2
_ENDING_LIMIT = 300  # bytes of the termination message of a container
_LOOP_WINDOW = timedelta(minutes=10)


@dataclass(frozen=True)
class PodProblem:
    """One problem of a pod, a node or an object.

    Attributes:
        reason: the reason that conditions report.
        subject: the pod, node or object that has the problem, such as `worker pod a-b-c of group gpu`.
        words: the message about the problem.
        since: start of the problem, UTC; empty if unknown.
    """

    reason: Reason
    subject: str
    words: str
    since: str = ""

    def started(self) -> datetime:
        """`since` as a datetime; `since` must not be empty."""
        return times.parsed(self.since)

    def __str__(self) -> str:
        """Return `worker pod a-b-c of group gpu, since 2026-01-01T00:00:00Z: 0/3 nodes are available`."""
        since = f", since {self.since}" if self.since else ""
        return f"{self.subject}{since}: {self.words}"


def of_pod(live: Json) -> PodProblem | None:
    """The problem that keeps this pod from running; None if there is none."""
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
    """The problem that keeps KubeRay from creating pods of this RayCluster, such as a quota or a policy; None if none."""
    conditions = {each["type"]: each for each in (live.get("status") or {}).get("conditions", [])}
    failure = conditions.get("ReplicaFailure", {})
    if failure.get("status") != "True" or not failure.get("reason", "").startswith("FailedCreate"):
        return None
    words = failure.get("message", "").removeprefix(failure["reason"]).strip()
    subject = f"a {'head' if 'Head' in failure['reason'] else 'worker'} pod of {live['metadata']['name']}"
    return _refusal(subject, words, failure.get("lastTransitionTime", ""))


def of_refused_pods(events: Iterable[Json], subject: str) -> PodProblem | None:
    """The problem that keeps a controller from creating pods, by its last FailedCreate Event; None if there is none.

    Args:
        events: Events about the controller's object.
        subject: the pods, such as `preload pods of a`.
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
    """The API server's message without the name of the forbidden pod, which is different at each try."""
    return _FORBIDDEN.sub("", words)


def of_events(events: Iterable[Json], now: datetime) -> PodProblem | None:
    """The problem of Ray pods that end repeatedly, by KubeRay's Events; None if they do not.

    Ray pods never restart: KubeRay deletes and re-creates them, and writes an Event for each.
    """
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
        f"the last one with {ended['reason'] or 'Error'} (exit code {ended['code']})"
        if ended
        else "the last one without an exit code"
    )
    part = "head" if "head Pod" in recent[-1][1] else "worker"
    words = f"{len(recent)} pods ended within {_LOOP_WINDOW.seconds // 60} minutes, {how}"
    return PodProblem(Reason.CRASH_LOOPING, f"{part} pods", words, recent[0][0])


def of_container(container: Json, subject: str, since: str) -> PodProblem | None:
    """The problem that keeps one container from running; None if there is none.

    Args:
        container: its status in the pod.
        subject: the pod or node, for the message.
        since: when the container could have started.
    """
    state = container.get("state") or {}
    waiting, ended = state.get("waiting") or {}, state.get("terminated") or {}
    reason, words = waiting.get("reason", ""), waiting.get("message", "")
    if reason in _PULL:
        cause = _BACK_OFF.sub("", words).strip() or "the registry's answer is in the pod's Events"
        return PodProblem(Reason.IMAGE_PULL_FAILED, subject, f"image {container['image']}: {cause}", since)
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
