# SPDX-License-Identifier: Apache-2.0
"""The objects KubeRay makes for a RayService: cluster, pods, Services (pure)."""

import copy
import secrets
import string
from typing import Any

from sd_testkit.kuberay.fingerprints import cluster_fingerprint

Json = dict[str, Any]

FINGERPRINT = "testkit.sdservice.dev/fingerprint"
SERVE_CONFIG = "testkit.sdservice.dev/serve-config"
_SUFFIX = string.ascii_lowercase + string.digits


def suffix(length: int = 5) -> str:
    """Random lower-case letters and digits, as Kubernetes appends to names."""
    return "".join(secrets.choice(_SUFFIX) for _ in range(length))


def ray_cluster(ray_service: Json) -> Json:
    """A new RayCluster of the RayService."""
    metadata = ray_service["metadata"]
    spec = ray_service["spec"]["rayClusterConfig"]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": f"{metadata['name']}-{suffix()}",
            "namespace": metadata["namespace"],
            "labels": {
                **metadata.get("labels", {}),
                "ray.io/originated-from-cr-name": metadata["name"],
                "ray.io/originated-from-crd": "RayService",
            },
            "annotations": {**metadata.get("annotations", {}), FINGERPRINT: cluster_fingerprint(spec)},
            "ownerReferences": [owner(ray_service)],
        },
        "spec": spec,
    }


def missing_pods(cluster: Json, pods: list[Json]) -> list[Json]:
    """Pods the cluster should have and has not: a head, and the floor of each worker group."""
    here = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
    spec = cluster["spec"]
    wanted = (
        [] if _in_group(here, "headgroup") else [_pod(cluster, "head", "headgroup", spec["headGroupSpec"])]
    )
    for group in spec.get("workerGroupSpecs", []):
        name = group["groupName"]
        floor = max(group.get("replicas", 0), group.get("minReplicas", 0))
        lacking = floor - len(_in_group(here, name))
        wanted += [_pod(cluster, "worker", name, group) for _ in range(lacking)]
    return wanted


def _in_group(pods: list[Json], group: str) -> list[Json]:
    return [pod for pod in pods if pod["metadata"]["labels"].get("ray.io/group") == group]


def _pod(cluster: Json, node_type: str, group: str, group_spec: Json) -> Json:
    name = cluster["metadata"]["name"]
    template = copy.deepcopy(group_spec["template"])
    metadata = template.setdefault("metadata", {})
    part = "head" if node_type == "head" else f"{group}-worker"
    metadata |= {
        "name": f"{name}-{part}-{suffix()}",
        "namespace": cluster["metadata"]["namespace"],
        "ownerReferences": [owner(cluster)],
        "labels": {
            **metadata.get("labels", {}),
            "ray.io/cluster": name,
            "ray.io/node-type": node_type,
            "ray.io/group": group,
            "ray.io/is-ray-node": "yes",
        },
    }
    template["spec"]["restartPolicy"] = "Never"
    return {"apiVersion": "v1", "kind": "Pod", **template}


def services(ray_service: Json) -> list[Json]:
    """The Services of a RayService: for requests, and for the head."""
    name = ray_service["metadata"]["name"]
    ports = {"serve": [("serve", 8000)], "head": [("dashboard", 8265), ("serve", 8000)]}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": f"{name}-{kind}-svc",
                "namespace": ray_service["metadata"]["namespace"],
                "ownerReferences": [owner(ray_service)],
            },
            "spec": {
                "selector": {"ray.io/originated-from-cr-name": name, "ray.io/node-type": kind},
                "ports": [{"name": port, "port": number} for port, number in ports[kind]],
            },
        }
        for kind in ("serve", "head")
    ]


def owner(body: Json) -> Json:
    """A controlling reference to an object."""
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "uid": body["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
