# SPDX-License-Identifier: Apache-2.0
"""The visible behaviour of KubeRay for a RayService, as short lines that make two runs comparable (pure).

Left out: times, addresses, resource sums and values that only have to differ, such as random suffixes. Clusters are
numbered in order of appearance, and pods within their cluster. Only kind, type and reason of Events are kept, since
the Event recorder merges similar ones. Events about the autoscaler's RBAC objects are left out.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sd_testkit.json_types import Json

Streams = dict[str, list[str]]
"""States by stream (`RayService`, `cluster 1`, `head pod 1`...). Each state differs from the one before."""

GONE = "gone"
_DEPLOYMENTS = {"I": "ingress", "M": "model"}
_RBAC = {"CreatedServiceAccount", "CreatedRole", "CreatedRoleBinding"}


@dataclass
class Recording:
    """States by stream and step, in order of appearance."""

    steps: dict[str, Streams] = field(default_factory=dict)
    _step: str = ""
    _numbers: dict[str, int] = field(default_factory=dict)
    _pods: dict[str, str] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)

    def begin(self, step: str) -> None:
        """Start a step. Later states belong to it."""
        self._step = step
        self.steps[step] = defaultdict(list)

    def see(self, kind: str, name: str, state: Json | None) -> None:
        """Record an object's state. None means that the object is gone."""
        for stream, line in self._lines(kind, name, state):
            if kind == "Event":
                told = self.steps[self._step]["events"]
                if line not in told:
                    told.append(line)
            elif self._last.get(stream) != line:
                self._last[stream] = line
                self.steps[self._step][stream].append(line)

    def last(self, stream: str) -> str | None:
        """Return the latest state of a stream, from any step."""
        return self._last.get(stream)

    def _lines(self, kind: str, name: str, state: Json | None) -> Iterator[tuple[str, str]]:
        match kind:
            case "RayService":
                yield "RayService", GONE if state is None else self._ray_service(state)
                for each in ((state or {}).get("status") or {}).get("conditions") or []:
                    yield f"condition {each['type']}", _condition(each) + f" ({each['message']})"
            case "RayCluster":
                yield from self._cluster(name, state)
            # A pod without a name here is left over from the time before the first step.
            case "Pod" if state is not None or name in self._pods:
                yield self._pod_name(name), GONE if state is None else _pod(state)
            case "Service" if not re.search(r"-[a-z0-9]{5}-head-svc$", name):
                yield _short(name), GONE if state is None else self._service(state)
            case "EndpointSlice" if re.search(r"serve-svc-[a-z0-9]{5}$", name):
                yield "serve endpoints", GONE if state is None else str(state["n"])
            case "Event" if state is not None and state["reason"] not in _RBAC:
                yield "events", f"{state['on']} {state['type']} {state['reason']}"

    def _cluster(self, name: str, state: Json | None) -> Iterator[tuple[str, str]]:
        number = self._number(name)
        if state is None:
            yield f"cluster {number}", GONE
        else:
            yield f"cluster {number} head", _head(state)
            yield f"cluster {number}", _workers(state)

    def _ray_service(self, state: Json) -> str:
        status = state.get("status") or {}
        observed = status.get("observedGeneration", 0)
        parts = []
        for each in sorted(status.get("conditions") or [], key=lambda c: str(c["type"])):
            age = observed - each["observedGeneration"]
            late = " [of an earlier generation]" if age else ""
            parts.append(f"{each['type']}={_condition(each)}{late}")
        parts += [
            f"{side}: {self._side(status.get(f'{side}ServiceStatus') or {})}"
            for side in ("active", "pending")
        ]
        parts.append(f"endpoints: {status.get('numServeEndpoints', 0)}")
        parts.append(f"serviceStatus: {status.get('serviceStatus', '-')}")
        if state["generation"] != observed:
            parts.append("of an earlier generation")
        return "; ".join(parts)

    def _side(self, side: Json) -> str:
        name = side.get("rayClusterName")
        if not name:
            return "-"
        words = [str(self._number(name))]
        for application in (side.get("applicationStatuses") or {}).values():
            words.append(application["status"])
            deployments = application.get("serveDeploymentStatuses") or {}
            named = {_DEPLOYMENTS.get(key, key): each["status"] for key, each in deployments.items()}
            words += [f"{key}={status}" for key, status in sorted(named.items())]
            if application.get("message"):
                words.append(f"({application['message'].strip().splitlines()[-1]})")
        return " ".join(words)

    def _service(self, state: Json) -> str:
        address = "headless" if state["clusterIP"] == "None" else "cluster IP"
        ports = " ".join(f"{name}:{port}" for name, port in sorted(state["ports"]) if name != "client")
        kept = {key: value for key, value in state["selector"].items() if key.startswith("ray.io/")}
        cluster = self._number(kept.pop("ray.io/cluster"))
        kept.pop("ray.io/identifier", None)
        chosen = " ".join(f"{key}={value}" for key, value in sorted(kept.items()))
        owner = state["owner"][0][0]
        return f"to cluster {cluster} {chosen}; {address}; {ports}; of the {owner}"

    def _number(self, cluster: str) -> int:
        return self._numbers.setdefault(cluster, len(self._numbers) + 1)

    def _pod_name(self, name: str) -> str:
        if name not in self._pods:
            cluster = name.rpartition("-head-")[0]
            what = "head" if cluster else "worker"
            cluster = cluster or "-".join(name.split("-")[:2])
            place = f"{what} pod {self._number(cluster)}"
            count = sum(each.startswith(place) for each in self._pods.values())
            self._pods[name] = f"{place}.{count + 1}"
        return self._pods[name]


def from_trace(path: Path, first_step: str) -> Recording:
    """Read a recording from a JSON lines file (`kuberay-traces/README.md`), starting with the first step."""
    recording = Recording()
    begun = False
    for entry in map(json.loads, path.read_text().splitlines()):
        if "step" in entry:
            name = re.split(r"[:(]", entry["step"])[0].strip()
            begun = begun or name == first_step
            if begun and name != "end":
                number = sum(each.split(" #")[0] == name for each in recording.steps)
                recording.begin(f"{name} #{number + 1}" if number else name)
        elif begun:
            kind, name = entry["object"].split("/")
            recording.see(kind, name, None if entry.get("gone") else entry)
    return recording


def slim(live: Json) -> Json:
    """Return a live object in the form of the recording's entries."""
    metadata, status = live["metadata"], live.get("status") or {}
    match live["kind"]:
        case "RayService":
            return {"generation": metadata["generation"], "status": status}
        case "RayCluster":
            groups = [dict(each) for each in live["spec"].get("workerGroupSpecs", [])]
            return {"status": status, "workerGroups": groups}
        case "Pod":
            ready = {c["type"]: c["status"] for c in status.get("conditions") or []}.get("Ready")
            labels = metadata["labels"]
            deleting = "deletionTimestamp" in metadata
            return {"phase": status.get("phase"), "ready": ready, "labels": labels, "deleting": deleting}
        case "Service":
            spec = live["spec"]
            owners = [[each["kind"], each["name"]] for each in metadata.get("ownerReferences", [])]
            ports = [[each["name"], each["port"]] for each in spec["ports"]]
            return {
                "clusterIP": spec.get("clusterIP"),
                "selector": spec["selector"],
                "ports": ports,
                "owner": owners,
            }
        case "EndpointSlice":
            ready = [each for each in live.get("endpoints") or [] if each["conditions"].get("ready")]
            return {"n": len(ready)}
        case "Event":
            about = live["involvedObject"]["kind"]
            return {"on": about, "type": live["type"], "reason": live["reason"]}
    raise ValueError(live["kind"])


def unexplained(
    start: str | None, recorded: Iterable[str], seen: Iterable[str], between: Iterable[str]
) -> list[str]:
    """Compare the observed states with a recording.

    Return the errors.

    Every recorded state must appear, in its order. Another state is permitted only if it is the initial one, or if
    the sampling of the recording must have missed it (`between`, regular expressions).
    """
    wanted, found = list(recorded), list(seen)
    rest = iter(found)
    problems = [f"not seen: {state}" for state in wanted if not any(state == each for each in rest)]
    allowed = [re.compile(each) for each in between]
    return problems + [
        f"not recorded: {state}"
        for state in found
        if state not in {start, *wanted} and not any(each.search(state) for each in allowed)
    ]


def _condition(condition: Json) -> str:
    return f"{condition['status']} {condition['reason']}"


def _head(state: Json) -> str:
    conditions = (state.get("status") or {}).get("conditions") or []
    found = next((each for each in conditions if each["type"] == "HeadPodReady"), None)
    return _condition(found) if found else "-"


def _workers(state: Json) -> str:
    status = state.get("status") or {}
    provisioned: Json = next(
        (each for each in status.get("conditions") or [] if each["type"] == "RayClusterProvisioned"), {}
    )
    groups = " ".join(
        f"{each['groupName']}={each['replicas']} ({each['minReplicas']}-{each['maxReplicas']})"
        for each in state["workerGroups"]
    )
    return (
        f"{groups}; provisioned {provisioned.get('status', '-')};"
        f" available {status.get('availableWorkerReplicas', 0)}, ready {status.get('readyWorkerReplicas', 0)};"
        f" state {status.get('state', '-')}"
    )


def _pod(state: Json) -> str:
    ready = "ready" if state["ready"] == "True" else "not ready"
    deleting = ", deleting" if state["deleting"] else ""
    return f"{state['phase']}, {ready}, serve={state['labels'].get('ray.io/serve')}{deleting}"


def _short(service: str) -> str:
    return "serve Service" if service.endswith("serve-svc") else "head Service"
