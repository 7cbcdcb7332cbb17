# SPDX-License-Identifier: Apache-2.0
from datetime import UTC, datetime

import pytest

from sd_operator.api.status import Reason
from sd_operator.observe.pod_problems import PodProblem, of_cluster, of_events, of_pod, of_refused_pods

NOW = datetime(2026, 1, 2, 3, 10, tzinfo=UTC)
SINCE = "2026-01-02T03:04:05Z"
PULL = 'failed to pull and unpack image "x": not found'


def pod(scheduled="True", message="", node_type="worker", **status):
    labels = {"ray.io/node-type": node_type, "ray.io/group": "gpu"} if node_type else {}
    condition = {"type": "PodScheduled", "status": scheduled, "lastTransitionTime": SINCE, "message": message}
    if scheduled == "False":
        condition["reason"] = "Unschedulable"
    return {"metadata": {"name": "p", "labels": labels}, "status": {"conditions": [condition], **status}}


def container(**state):
    return {"containerStatuses": [{"name": "ray-worker", "image": "r/i:1", "state": state}]}


GPUS = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
TAINTS = "0/2 nodes are available: 1 node(s) had untolerated taint {gpu: v1.5}, 2 cannot allocate all claims."
VICTIMS = "preemption: 0/3 nodes are available: 3 No preemption victims found for incoming pod."


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (GPUS, GPUS),
        (f"{GPUS} {VICTIMS}", GPUS),
        (f"{GPUS} no new claims to deallocate, {VICTIMS}", GPUS),
        (f"{TAINTS} still not schedulable, {VICTIMS}", TAINTS),
        (f"no new claims to deallocate, {VICTIMS}", "no new claims to deallocate"),
        (VICTIMS, "no node fits"),
    ],
    ids=["nothing else", "1.30", "1.34", "claims", "no sentence before it", "nothing but it"],
)
def test_the_scheduler_is_quoted_without_what_it_says_about_preemption(told, words):
    """Whole sentences are left out: what stays does not end in the middle of a clause."""
    assert of_pod(pod("False", told)) == PodProblem(
        Reason.UNSCHEDULABLE, "worker pod p of group gpu", words, SINCE
    )


@pytest.mark.parametrize("node_type", ["head", None])
def test_head_and_preload_pods_are_named_for_what_they_are(node_type):
    assert of_pod(pod("False", "no", node_type)).subject == ("head pod p" if node_type else "pod p")


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        ("ErrImagePull", PULL),
        ("ImagePullBackOff", f'Back-off pulling image "r/i:1": ErrImagePull: {PULL}'),
    ],
)
def test_the_registrys_words_are_the_same_between_two_tries(reason, message):
    """Kubernetes alternates the two; a status that alternated with them would be written every few seconds."""
    found = of_pod(pod(**container(waiting={"reason": reason, "message": message})))
    assert (found.reason, found.words) == (Reason.IMAGE_PULL_FAILED, f"image r/i:1: {PULL}")


@pytest.mark.parametrize(
    ("state", "reason", "words"),
    [
        (
            {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "hf" not found'}},
            Reason.CONTAINER_REFUSED,
            'secret "hf" not found',
        ),
        (
            {"terminated": {"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-02T03:05:00Z"}},
            Reason.CRASH_LOOPING,
            "container ray-worker ended with OOMKilled (exit code 137)",
        ),
    ],
    ids=["a Secret is missing", "out of memory"],
)
def test_containers(state, reason, words):
    found = of_pod(pod(**container(**state)))
    assert (found.reason, found.words) == (reason, words)


def test_a_crash_loop_tells_how_the_last_try_ended():
    status = container(waiting={"reason": "CrashLoopBackOff", "message": "back-off 40s"})
    ended = {"exitCode": 1, "reason": "Error", "message": "no such\nflag"}
    status["containerStatuses"][0]["lastState"] = {"terminated": ended}
    assert of_pod(pod(**status)).words == "container ray-worker ended with Error (exit code 1): no such flag"


@pytest.mark.parametrize(
    "state",
    [{"running": {}}, {"waiting": {"reason": "ContainerCreating"}}, {"terminated": {"exitCode": 0}}],
    ids=["running", "being created", "done"],
)
def test_no_trouble(state):
    assert of_pod(pod(**container(**state))) is None
    assert of_pod({"metadata": {"name": "p"}}) is None


def cluster(message, reason="FailedCreateWorkerPod", state="True"):
    condition = {"type": "ReplicaFailure", "status": state, "reason": reason, "lastTransitionTime": SINCE}
    return {
        "metadata": {"name": "c"},
        "status": {"conditions": [{**condition, "message": f"{reason}\n{message}"}]},
    }


def test_a_quota_is_named_and_the_random_name_of_the_pod_is_not():
    words = "exceeded quota: team, requested: requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2"
    found = of_cluster(cluster(f'pods "c-gpu-worker-x7k2p" is forbidden: {words}'))
    assert found == PodProblem(Reason.QUOTA_EXCEEDED, "a worker pod of c", words, SINCE)


def test_what_else_refuses_pods_is_quoted():
    refused = cluster('pods "c" is forbidden: violates PodSecurity "restricted"', "FailedCreateHeadPod")
    found = of_cluster(refused)
    assert found.reason is Reason.PODS_REFUSED
    assert str(found) == f'a head pod of c, since {SINCE}: violates PodSecurity "restricted"'
    assert of_cluster(cluster("no", state="False")) is None
    assert of_cluster(cluster("no", "FailedDeleteWorkerPod")) is None
    assert of_cluster({"metadata": {"name": "c"}}) is None


def death(at, part="worker", code=137):
    message = (
        f"Deleted {part} Pod team/p; Pod status: Failed; Pod restart policy: Never; Ray container terminated"
        f" status: &ContainerStateTerminated{{ExitCode:{code},Signal:0,Reason:OOMKilled,Message:,"
    )
    return {"reason": f"Deleted{part.capitalize()}Pod", "message": message, "lastTimestamp": at}


def test_pods_that_end_again_and_again_are_a_crash_loop():
    events = [death("2026-01-02T03:09:00Z"), death("2026-01-02T03:04:00Z"), death("2026-01-02T02:00:00Z")]
    assert of_events(events, NOW) == PodProblem(
        Reason.CRASH_LOOPING,
        "worker pods",
        "2 pods ended within 10 minutes, the last one with OOMKilled (exit code 137)",
        "2026-01-02T03:04:00Z",
    )


def test_one_that_ended_once_is_no_loop():
    assert of_events([death("2026-01-02T03:09:00Z"), death("2026-01-02T02:00:00Z")], NOW) is None
    scaled_down = {**death("2026-01-02T03:09:00Z"), "message": "Deleted worker Pod team/p"}
    assert of_events([scaled_down, scaled_down, {"reason": "CreatedHeadPod"}], NOW) is None


@pytest.mark.parametrize(
    ("why", "reason"),
    [
        ("exceeded quota: small, requested: pods=1, used: pods=9, limited: pods=9", Reason.QUOTA_EXCEEDED),
        ('violates PodSecurity "restricted:latest": seccompProfile', Reason.PODS_REFUSED),
    ],
    ids=["quota", "policy"],
)
def test_pods_that_a_controller_may_not_make_are_told_by_its_last_event(why, reason):
    def event(number, words, kind="FailedCreate"):
        message = f'Error creating: pods "imagine-preload-gpu-{number}" is forbidden: {words}'
        return {"reason": kind, "message": message, "lastTimestamp": f"2026-01-02T03:04:0{number}Z"}

    events = [event(2, why), event(1, "of before"), event(3, "not a failure", "SuccessfulCreate")]
    assert of_refused_pods(events, "preload pods") == PodProblem(reason, "preload pods", why)
    assert of_refused_pods([], "preload pods") is None
