# SPDX-License-Identifier: Apache-2.0
"""The status KubeRay writes into a RayCluster (pure)."""

from sd_testkit.cluster.api_server import now
from sd_testkit.json_types import Json
from sd_testkit.kuberay.conditions import remove_condition, set_condition


def cluster_status(cluster: Json, pods: list[Json], failure: tuple[str, str] | None) -> Json:
    """Return the next status of a RayCluster.

    The result equals the recorded status if nothing changed.

    Args:
        cluster: the live RayCluster.
        pods: its pods.
        failure: reason and message, if the API server refused a pod.
    """
    before: Json = cluster.get("status") or {}
    spec_groups = cluster["spec"].get("workerGroupSpecs", [])
    heads = [each for each in pods if each["metadata"]["labels"]["ray.io/node-type"] == "head"]
    workers = [each for each in pods if each not in heads]
    conditions = list(before.get("conditions", []))
    set_condition(conditions, {"type": "HeadPodReady", **_head_ready(heads)})
    remove_condition(conditions, "ReplicaFailure")
    if failure is not None:
        known = next(
            (each for each in before.get("conditions", []) if each["type"] == "ReplicaFailure"), None
        )
        conditions += [known] if known is not None else []
        told = {"status": "True", "reason": failure[0], "message": failure[1]}
        set_condition(conditions, {"type": "ReplicaFailure", **told})
    provisioned = any(c["type"] == "RayClusterProvisioned" and c["status"] == "True" for c in conditions)
    if not provisioned:
        set_condition(conditions, {"type": "RayClusterProvisioned", **_provisioned(pods)})
    for name in ("RayClusterSuspended", "RayClusterSuspending"):
        set_condition(conditions, {"type": name, "status": "False", "reason": name, "message": ""})
    status = {
        **before,
        "conditions": conditions,
        "observedGeneration": cluster["metadata"]["generation"],
        "desiredWorkerReplicas": sum(desired_workers(each) for each in spec_groups),
        "minWorkerReplicas": sum(g.get("minReplicas") or 0 for g in spec_groups),
        "maxWorkerReplicas": sum(g.get("maxReplicas") or 0 for g in spec_groups),
        "availableWorkerReplicas": sum(_phase(each) == "Running" for each in workers),
        "readyWorkerReplicas": sum(_phase(each) == "Running" and _ready(each) for each in workers),
        "head": _head(cluster, heads),
    }
    if len(pods) == status["desiredWorkerReplicas"] + 1 and all(_runs(each) for each in pods):
        status["state"] = "ready"
    # Zeros are left out, as Go's omitempty does.
    status = {key: value for key, value in status.items() if value not in (0, [], {})}
    stamp = {"lastUpdateTime": before.get("lastUpdateTime")}
    return before if {**status, **stamp} == before else {**status, "lastUpdateTime": now()}


def desired_workers(group: Json) -> int:
    """Return the desired workers of a group: the autoscaler's number, within the group's bounds."""
    low, high = group.get("minReplicas") or 0, group.get("maxReplicas")
    wanted = max(group.get("replicas") or 0, low)
    return wanted if high is None else min(wanted, high)


def _head_ready(heads: list[Json]) -> Json:
    """Return the condition for the head, from its Ready condition.

    The reason of a waiting container is more precise than `ContainersNotReady`.
    """
    if not heads:
        return {"status": "False", "reason": "HeadPodNotFound", "message": "Head Pod not found"}
    status = heads[0].get("status") or {}
    ready = next((each for each in status.get("conditions") or [] if each["type"] == "Ready"), None)
    if ready is None:
        return {"status": "False", "reason": "Unknown", "message": ""}
    if ready["status"] == "True":
        return {"status": "True", "reason": "HeadPodRunningAndReady", "message": ""}
    reason, message = ready.get("reason") or "Unknown", ready.get("message", "")
    waiting = [
        (each["name"], each["state"]["waiting"])
        for each in status.get("containerStatuses") or []
        if "waiting" in each.get("state", {})
    ]
    if reason == "ContainersNotReady" and waiting:
        name, state = waiting[0]
        reason, message = state["reason"], f"{message}; {name}: {state.get('message', '')}"
    return {"status": "False", "reason": reason, "message": message}


def _provisioned(pods: list[Json]) -> Json:
    if pods and all(_runs(each) for each in pods):
        message = "All Ray Pods are ready for the first time"
        return {"status": "True", "reason": "AllPodRunningAndReadyFirstTime", "message": message}
    message = "RayCluster Pods are being provisioned for first time"
    return {"status": "False", "reason": "RayClusterPodsProvisioning", "message": message}


def _head(cluster: Json, heads: list[Json]) -> Json:
    head: Json = {"serviceName": f"{cluster['metadata']['name']}-head-svc"}
    if heads:
        head["podName"] = heads[0]["metadata"]["name"]
        address = (heads[0].get("status") or {}).get("podIP")
        if address:
            head |= {"podIP": address, "serviceIP": address}
    return head


def _phase(pod: Json) -> str:
    return str((pod.get("status") or {}).get("phase", ""))


def _ready(pod: Json) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _runs(pod: Json) -> bool:
    return _phase(pod) == "Running" and _ready(pod)
