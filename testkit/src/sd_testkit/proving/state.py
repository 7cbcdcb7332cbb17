# SPDX-License-Identifier: Apache-2.0
"""The state of a service in the cluster, without parts that differ between two identical runs (pure)."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from sd_testkit.json_types import Json

State = Mapping[str, Json]
"""Objects such as `RayService NAME`, each with its content."""

KINDS = ("RayService", "DaemonSet", "Deployment", "Secret")
NAME_LABEL = "sdservice.dev/name"
_SHARED_LABEL = "sdservice.dev/preload"

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?( UTC|Z)?|\d\d:\d\d:\d\d( UTC)?")
_SUFFIX = re.compile(r"(NAME-)([a-z0-9]{5})\b")
_MEASURED = ("coldStart",)  # The duration of this one start.
_FINGERPRINT = "sdservice.dev/cluster-config"  # The hash of a config that contains the name.
_COUNTED = re.compile(r"^deprecated\.daemonset\.")  # Kubernetes raises this number with each change.


def of(service: Json, children: Iterable[Json]) -> State:
    """Return the state of one service.

    Args:
        service: the live resource.
        children: live objects of `KINDS` in its namespace; children of other services are left out.
    """
    metadata = service["metadata"]
    words = {metadata["uid"]: "UID", metadata["namespace"]: "NAMESPACE", metadata["name"]: "NAME"}
    found = {"StableDiffusionService NAME": _service(service)}
    for child in children:
        if belongs_to(child, service):
            found[f"{child['kind']} {child['metadata']['name']}"] = _child(child, metadata["uid"])
    return {_masked(key, words): json.loads(_masked(json.dumps(each), words)) for key, each in found.items()}


def differences(wanted: State, found: State) -> list[str]:
    """Return the differences of two states, as `RayService NAME .spec.suspend: False, wanted True`."""
    one, other = _flat("", wanted), _flat("", found)
    missing = object()
    return [
        f"{path}: {_told(other, path)}, wanted {_told(one, path)}"
        for path in sorted(one.keys() | other.keys())
        if one.get(path, missing) != other.get(path, missing)
    ]


def conditions(service: Json) -> dict[str, tuple[str, str]]:
    """Return status and reason of each condition."""
    told = (service.get("status") or {}).get("conditions", [])
    return {each["type"]: (each["status"], each["reason"]) for each in told}


def belongs_to(child: Json, service: Json) -> bool:
    """Return whether a child belongs to this service by its label, or is shared by it according to its owners."""
    name, uid = service["metadata"]["name"], service["metadata"]["uid"]
    labels = child["metadata"].get("labels") or {}
    return bool(labels.get(NAME_LABEL) == name or (_SHARED_LABEL in labels and uid in owners(child)))


def owners(live: Json) -> list[str]:
    """Return the uids of all owners."""
    return [each["uid"] for each in live["metadata"].get("ownerReferences", [])]


def _service(live: Json) -> Json:
    status = {key: value for key, value in (live.get("status") or {}).items() if key not in _MEASURED}
    metadata = live["metadata"]
    generation = metadata["generation"]
    status["observedGeneration"] = status.get("observedGeneration") == generation
    status["conditions"] = {
        each["type"]: {**each, "observedGeneration": each.get("observedGeneration") == generation}
        for each in status.get("conditions", [])
    }
    kept = {key: metadata.get(key) for key in ("finalizers", "annotations", "labels")}
    return {"metadata": kept, "spec": live["spec"], "status": status}


def _child(live: Json, uid: str) -> Json:
    metadata = live["metadata"]
    references = metadata.get("ownerReferences") or []
    if _SHARED_LABEL in (metadata.get("labels") or {}):
        references = [
            each for each in references if each["uid"] == uid
        ]  # Other services that share the object are no part of this state.
    annotations = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if not _COUNTED.match(key)
    }
    if _FINGERPRINT in annotations:
        annotations[_FINGERPRINT] = "FINGERPRINT"
    return {
        "labels": metadata.get("labels"),
        "annotations": annotations,
        "owners": references,
        "managers": sorted(
            {each["manager"] for each in metadata.get("managedFields", []) if "subresource" not in each}
        ),
        "going": "deletionTimestamp" in metadata,
        "spec": live.get("spec"),
        "data": sorted(live.get("data") or {}),
    }


def _masked(text: str, words: Mapping[str, str]) -> str:
    for word, instead in words.items():
        text = text.replace(word, instead)
    return _SUFFIX.sub(r"\1*", _TIME.sub("TIME", text))


def _flat(path: str, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping) and value:
        parts = {f"{path}.{key}" if path else key: inner for key, inner in value.items()}
    elif isinstance(value, list) and value:
        parts = {f"{path}[{number}]": inner for number, inner in enumerate(value)}
    else:
        return {path: value}
    flat = dict[str, Any]()
    for key, inner in parts.items():
        flat |= _flat(key, inner)
    return flat


def _told(flat: Mapping[str, Any], path: str) -> str:
    return repr(flat[path])[:300] if path in flat else "nothing"
