# SPDX-License-Identifier: Apache-2.0
"""KubeRay's CRDs: the original ones if KUBERAY_CRDS names a folder, else the subset that this project renders and reads.

The subset is deliberately strict: a field that this project renders and the subset lacks is an unknown field.
"""

import os
from pathlib import Path

import yaml

from sd_testkit.json_types import Json

_UNAPPROVED = "api-approved.kubernetes.io"
_STRING: Json = {"type": "string"}
_INTEGER: Json = {"type": "integer", "format": "int32"}
_BOOLEAN: Json = {"type": "boolean"}
_FREE: Json = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
_STRINGS: Json = {"type": "object", "additionalProperties": _STRING}


def kuberay_crds() -> list[Json]:
    """Return the CustomResourceDefinitions RayService and RayCluster."""
    folder = os.environ.get("KUBERAY_CRDS")
    if folder:
        return [yaml.safe_load(path.read_text()) for path in sorted(Path(folder).glob("ray.io_*.yaml"))]
    return [
        _crd("RayService", "rayservices", _ray_service_spec(), _ray_service_status()),
        _crd("RayCluster", "rayclusters", _ray_cluster_spec(), _FREE),
    ]


def gateway_crd() -> Json:
    """Return the CRD Gateway of the Gateway API, without its rules.

    The CRD keeps every field that KubeRay or a test writes.
    """
    group = "gateway.networking.k8s.io"
    body = _crd("Gateway", "gateways", _FREE, _FREE)
    # Names under *.k8s.io need an approval of the Kubernetes API reviewers. Tests have none.
    body["metadata"] |= {"name": f"gateways.{group}", "annotations": {_UNAPPROVED: "unapproved, for tests"}}
    body["spec"]["group"] = group
    return body


def _object(required: tuple[str, ...] = (), **properties: Json) -> Json:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _template() -> Json:
    container = _FREE | {"properties": {"name": _STRING, "image": _STRING}, "required": ["name"]}
    pod = _FREE | {"properties": {"containers": _list(container)}, "required": ["containers"]}
    return _object(metadata=_FREE, spec=pod)


def _ray_cluster_spec() -> Json:
    head = _object(
        ("template",),
        rayStartParams=_STRINGS,
        template=_template(),
        headService=_FREE,
        serviceType=_STRING,
    )
    worker = _object(
        ("groupName", "minReplicas", "maxReplicas", "template"),
        groupName=_STRING,
        replicas=_INTEGER,
        minReplicas=_INTEGER,
        maxReplicas=_INTEGER,
        numOfHosts=_INTEGER,
        idleTimeoutSeconds=_INTEGER,
        priority=_INTEGER,
        scaleStrategy=_object(workersToDelete=_list(_STRING)),
        rayStartParams=_STRINGS,
        template=_template(),
    )
    autoscaler = _object(
        version={"type": "string", "enum": ["v1", "v2"]},
        idleTimeoutSeconds=_INTEGER,
        imagePullPolicy=_STRING,
        env=_list(_FREE),
        resources=_FREE,
        securityContext=_FREE,
    )
    return _object(
        ("headGroupSpec",),
        rayVersion=_STRING,
        enableInTreeAutoscaling=_BOOLEAN,
        autoscalerOptions=autoscaler,
        authOptions=_object(mode={"type": "string", "enum": ["disabled", "token"]}, secretName=_STRING),
        gcsFaultToleranceOptions=_fault_tolerance(),
        suspend=_BOOLEAN,
        headGroupSpec=head,
        workerGroupSpecs=_list(worker),
    )


def _fault_tolerance() -> Json:
    immutable = {"rule": "self == oldSelf", "message": "gcsFaultToleranceOptions.backend is immutable"}
    backend = {"type": "string", "enum": ["redis", "rocksdb"], "x-kubernetes-validations": [immutable]}
    storage = _object(size={"x-kubernetes-int-or-string": True}, storageClassName=_STRING)
    return _object(backend=backend, redisAddress=_STRING, redisPassword=_FREE, storage=storage)


def _ray_service_spec() -> Json:
    options = _object(
        ("gatewayClassName", "intervalSeconds", "stepSizePercent"),
        gatewayClassName=_STRING,
        intervalSeconds=_INTEGER,
        stepSizePercent=_INTEGER,
        maxSurgePercent=_INTEGER | {"default": 100},
    )
    return _object(
        ("rayClusterConfig",),
        serveConfigV2=_STRING,
        upgradeStrategy=_object(type=_STRING, clusterUpgradeOptions=options),
        excludeHeadPodFromServeSvc=_BOOLEAN,
        rayClusterDeletionDelaySeconds=_INTEGER,
        suspend=_BOOLEAN,
        rayClusterConfig=_ray_cluster_spec(),
    )


def _ray_service_status() -> Json:
    condition = _object(
        ("type", "status", "reason", "message", "lastTransitionTime"),
        type=_STRING,
        status=_STRING,
        reason=_STRING,
        message=_STRING,
        lastTransitionTime=_STRING | {"format": "date-time"},
        observedGeneration={"type": "integer", "format": "int64"},
    )
    return _object(
        observedGeneration={"type": "integer", "format": "int64"},
        numServeEndpoints=_INTEGER,
        conditions=_list(condition),
        activeServiceStatus=_FREE,
        pendingServiceStatus=_FREE,
        serviceStatus=_STRING,
        lastUpdateTime=_STRING | {"format": "date-time"},
    )


def _crd(kind: str, plural: str, spec: Json, status: Json) -> Json:
    schema = _object(apiVersion=_STRING, kind=_STRING, metadata={"type": "object"}, spec=spec, status=status)
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": schema},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.ray.io"},
        "spec": {
            "group": "ray.io",
            "scope": "Namespaced",
            "names": {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()},
            "versions": [version],
        },
    }
