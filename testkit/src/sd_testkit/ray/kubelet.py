# SPDX-License-Identifier: Apache-2.0
"""The status that a kubelet would write for a Ray pod (pure)."""

from sd_testkit.cluster.api_server import now
from sd_testkit.json_types import Json

_CREATING = {"waiting": {"reason": "ContainerCreating"}}
_MISSING_TAG = ":none"


def creating(pod: Json) -> Json:
    """The pod is on its node, and its containers are being created. No registry has an image with the tag `none`."""
    missing = missing_image(pod)
    if missing is None:
        return _status(pod, "Pending", ready=False, state=_CREATING)
    message = f'failed to resolve reference "{missing}": {missing}: not found'
    return _status(
        pod, "Pending", ready=False, state={"waiting": {"reason": "ErrImagePull", "message": message}}
    )


def missing_image(pod: Json) -> str | None:
    """Return the first image of a pod that cannot be pulled."""
    images = (str(each["image"]) for each in pod["spec"]["containers"])
    return next((each for each in images if each.endswith(_MISSING_TAG)), None)


def running(pod: Json, address: str, *, ready: bool) -> Json:
    """The containers run. `ready` means that the readiness probe succeeds."""
    told = (pod.get("status") or {}).get("containerStatuses") or [{}]
    known = (told[0].get("state") or {}).get("running") or {"startedAt": now()}
    status = _status(pod, "Running", ready=ready, state={"running": known})
    return {**status, "podIP": address, "podIPs": [{"ip": address}], "hostIP": "10.0.0.1"}


def failed(pod: Json, exit_code: int) -> Json:
    """The containers have ended."""
    state = {"terminated": {"exitCode": exit_code, "reason": "Error", "finishedAt": now()}}
    return _status(pod, "Failed", ready=False, state=state)


def _status(pod: Json, phase: str, *, ready: bool, state: Json) -> Json:
    names = [each["name"] for each in pod["spec"]["containers"]]
    message = "" if ready else f"containers with unready status: [{' '.join(names)}]"
    reason = "" if ready else "PodFailed" if phase == "Failed" else "ContainersNotReady"
    verdict = {"status": str(ready), "reason": reason, "message": message}
    kept = {each["type"]: each for each in (pod.get("status") or {}).get("conditions") or []}
    conditions = {**kept, "Initialized": {"type": "Initialized", "status": "True"}}
    for kind in ("ContainersReady", "Ready"):
        before = kept.get(kind, {})
        since = before.get("lastTransitionTime") if before.get("status") == verdict["status"] else None
        conditions[kind] = {"type": kind, **verdict, "lastTransitionTime": since or now()}
    statuses = [
        {
            "name": each["name"],
            "image": each["image"],
            "imageID": "",
            "ready": ready,
            "restartCount": 0,
            "started": "running" in state,
            "state": state,
        }
        for each in pod["spec"]["containers"]
    ]
    return {"phase": phase, "conditions": list(conditions.values()), "containerStatuses": statuses}
