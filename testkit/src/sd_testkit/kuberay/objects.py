# SPDX-License-Identifier: Apache-2.0
"""The objects that KubeRay creates: clusters, pods and Services (pure).

Source: https://github.com/ray-project/kuberay v1.7.0, ray-operator/controllers/ray/common. These pods are for a
simulated Ray: the autoscaler's sidecar, probes and init containers are left out. `ray_pods` has them.
"""

import copy

from sd_testkit.cluster.api_server import suffix
from sd_testkit.json_types import Json
from sd_testkit.kuberay.fingerprints import cluster_fingerprint
from sd_testkit.kuberay.go_types import cluster_as_written

FINGERPRINT = "ray.io/hash-without-replicas-and-workers-to-delete"
GROUPS = "ray.io/num-worker-groups"
VERSION = "ray.io/kuberay-version"
SERVE_LABEL = "ray.io/serve"
_DEFAULT_PORTS = {"gcs-server": 6379, "dashboard": 8265, "metrics": 8080, "client": 10001, "serve": 8000}
_COMMAND = ["sh", "-c", "trap exit TERM; sleep 2147483647 & wait"]
_BY = {"app.kubernetes.io/created-by": "kuberay-operator", "app.kubernetes.io/name": "kuberay"}


def origin(name: str) -> dict[str, str]:
    """Return the labels by which KubeRay finds the objects of a RayService."""
    return {"ray.io/originated-from-cr-name": name, "ray.io/originated-from-crd": "RayService"}


def ray_cluster(ray_service: Json, name: str) -> Json:
    """Return the RayCluster of a name that the RayService currently specifies."""
    metadata = ray_service["metadata"]
    spec = cluster_as_written(ray_service["spec"]["rayClusterConfig"])
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {**metadata.get("labels", {}), **origin(metadata["name"])},
            "annotations": {
                **metadata.get("annotations", {}),
                FINGERPRINT: cluster_fingerprint(spec),
                GROUPS: str(len(spec.get("workerGroupSpecs", []))),
                VERSION: "v1.7.0",
            },
            "ownerReferences": [owner(ray_service)],
        },
        "spec": spec,
    }


def pod(cluster: Json, node_type: str, group_spec: Json) -> Json:
    """Return a pod of the head group or of a worker group.

    Its container waits for SIGTERM in place of a Ray start.
    """
    body = labelled(cluster, node_type, group_spec)
    body["spec"].setdefault("restartPolicy", "Never")
    body["spec"]["containers"][0]["command"] = _COMMAND
    return body


def labelled(cluster: Json, node_type: str, group_spec: Json) -> Json:
    """Return a pod of a group's template, with KubeRay's name and labels."""
    name = cluster["metadata"]["name"]
    group = "headgroup" if node_type == "head" else group_spec["groupName"]
    template = copy.deepcopy(group_spec["template"])
    metadata = template.setdefault("metadata", {})
    part = "head" if node_type == "head" else f"{group}-worker"
    metadata |= {
        "name": f"{f'{name}-{part}'[:50]}-{suffix()}",
        "namespace": cluster["metadata"]["namespace"],
        "ownerReferences": [owner(cluster)],
        "labels": {
            **metadata.get("labels", {}),
            **_BY,
            "ray.io/cluster": name,
            "ray.io/node-type": node_type,
            "ray.io/group": group,
            "ray.io/identifier": f"{name}-{node_type}",
            "ray.io/is-ray-node": "yes",
            SERVE_LABEL: "false" if node_type == "head" else "true",
        },
    }
    return {"apiVersion": "v1", "kind": "Pod", **template}


def cluster_head_service(cluster: Json) -> Json:
    """Return the headless Service of a RayCluster's head."""
    labels = _head_labels(cluster)
    name = f"{cluster['metadata']['name']}-head-svc"
    return _service(cluster, name, labels, _headless(cluster))


def head_service(ray_service: Json, cluster: Json) -> Json:
    """Return the RayService's Service for the head of the active cluster."""
    name = ray_service["metadata"]["name"]
    labels = {**origin(name), "ray.io/identifier": f"{name}-head", "ray.io/node-type": "head"}
    return _service(ray_service, f"{name}-head-svc", labels, _headless(cluster))


def serve_service(ray_service: Json, cluster: Json) -> Json:
    """Return the RayService's Service for requests."""
    name = ray_service["metadata"]["name"]
    selector = {"ray.io/cluster": cluster["metadata"]["name"], SERVE_LABEL: "true"}
    ports = [
        {"name": port, "port": number}
        for port, number in _ports(cluster).items()
        if port == "serve" or port.startswith("serve-")
    ]
    labels = {**origin(name), SERVE_LABEL: f"{name}-serve"}
    return _service(ray_service, f"{name}-serve-svc", labels, {"selector": selector, "ports": ports})


def fits(ray_service: Json, cluster: Json) -> bool:
    """Return whether a RayCluster matches its RayService, apart from changes that need no new cluster."""
    wanted = cluster_fingerprint(ray_service["spec"]["rayClusterConfig"])
    return bool(cluster["metadata"]["annotations"][FINGERPRINT] == wanted)


def only_appends(ray_service: Json, cluster: Json) -> bool:
    """Return whether two specs are equal, apart from worker groups that were added at the end."""
    config = ray_service["spec"]["rayClusterConfig"]
    count = int(cluster["metadata"]["annotations"][GROUPS])
    if len(config.get("workerGroupSpecs", [])) < count:
        return False
    return bool(cluster["metadata"]["annotations"][FINGERPRINT] == cluster_fingerprint(config, count))


def owner(body: Json) -> Json:
    """Return a controller reference to an object."""
    return {
        "apiVersion": body["apiVersion"],
        "kind": body["kind"],
        "name": body["metadata"]["name"],
        "uid": body["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _service(owning: Json, name: str, labels: Json, spec: Json) -> Json:
    metadata = {
        "name": name,
        "namespace": owning["metadata"]["namespace"],
        "labels": labels,
        "ownerReferences": [owner(owning)],
    }
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}


def _headless(cluster: Json) -> Json:
    ports = [{"name": name, "port": number} for name, number in sorted(_ports(cluster).items())]
    return {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": _head_labels(cluster),
        "ports": ports,
    }


def _head_labels(cluster: Json) -> dict[str, str]:
    name = cluster["metadata"]["name"]
    return {
        **_BY,
        "ray.io/cluster": name,
        "ray.io/identifier": f"{name}-head",
        "ray.io/node-type": "head",
    }


def _ports(cluster: Json) -> dict[str, int]:
    container = cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    found = {each["name"]: each["containerPort"] for each in container.get("ports", [])}
    return {**(found or _DEFAULT_PORTS), "metrics": found.get("metrics", 8080)}
