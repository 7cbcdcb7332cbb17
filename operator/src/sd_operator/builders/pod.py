# SPDX-License-Identifier: Apache-2.0
"""Builds the pod templates of head and workers: Pod Security Standards `restricted`, and shared memory.

KubeRay adds the `ray start` command, probes, ports and its own volumes. The Ray container must be the first container.
"""

import math

from sd_operator import naming
from sd_operator.api import Resource, Spec, StateVolume, WorkerGroup
from sd_operator.api.capacity import gpus_per_worker
from sd_operator.api.placement import Resources
from sd_operator.builders import termination
from sd_operator.builders.cache import (
    cache_mount,
    cache_security,
    cache_variables,
    cache_volume,
    volume_security,
)
from sd_operator.builders.environment import env
from sd_operator.builders.placement import head_placement, worker_placement
from sd_operator.builders.ray_variables import ray_variables
from sd_operator.json_types import Json
from sd_operator.settings import Settings

USER_ID = 1000  # of the runtime image
_THREADS = "OMP_NUM_THREADS"


def image(spec: Spec, settings: Settings) -> str:
    """Reference of the runtime image. A digest takes precedence over a tag."""
    repository = spec.image.repository or settings.runtime_repository
    if spec.image.digest:
        return f"{repository}@{spec.image.digest}"
    return f"{repository}:{spec.image.tag or settings.runtime_tag}"


def head_template(resource: Resource, settings: Settings) -> Json:
    """Pod template of the head. The head routes requests and controls the cluster, and runs no model."""
    spec = resource.spec
    container = _container(spec, settings, "ray-head", spec.head.resources, gpus=0)
    container["ports"] = [
        # The protocol is part of a port's key. Without it, the live object would differ, because the API server adds it.
        {"name": name, "containerPort": port, "protocol": "TCP"}
        for name, port in (
            ("gcs-server", 6379),
            ("dashboard", 8265),
            ("client", 10001),
            ("serve", naming.SERVE_PORT),
        )
    ]
    container["env"] += termination.head_variables()
    container["lifecycle"] = termination.head_lifecycle(spec)
    # The head keeps its ServiceAccount token, because KubeRay's autoscaler sidecar needs it.
    pod: Json = {**head_placement(spec), "terminationGracePeriodSeconds": termination.grace_seconds(spec)}
    if isinstance(spec.head.store(), StateVolume):
        pod["securityContext"] = volume_security(USER_ID)
    return _template(resource, container, pod)


def worker_template(resource: Resource, settings: Settings, group: WorkerGroup) -> Json:
    """Pod template of a worker. A worker is one Ray node with its GPUs."""
    spec = resource.spec
    container = _container(spec, settings, "ray-worker", group.resources, gpus=gpus_per_worker(spec, group))
    container["env"] += [
        *termination.worker_variables(spec),
        *env(cache_variables()),
        *_threads(spec, group),
        *model_token(spec),
    ]
    pod: Json = {
        **worker_placement(spec, group),
        **cache_security(spec, USER_ID),
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": termination.grace_seconds(spec),
    }
    if spec.service_account_name:
        pod |= {"serviceAccountName": spec.service_account_name, "automountServiceAccountToken": True}
    container["volumeMounts"] += [cache_mount(), *_model_mounts(spec)]
    template = _template(resource, container, pod)
    template["spec"]["volumes"] += [cache_volume(resource, settings), *_model_volumes(spec)]
    return template


def security_context() -> Json:
    """Container security context for Pod Security Standards `restricted`."""
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "runAsUser": USER_ID,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(spec: Spec, settings: Settings, name: str, resources: Resources, gpus: int) -> Json:
    amounts: Json = {"cpu": str(resources.cpu), "memory": str(resources.memory)}
    if gpus:
        amounts[spec.gpu_resource_name] = str(gpus)
    return {
        "name": name,
        "image": image(spec, settings),
        "imagePullPolicy": spec.image.pull_policy,
        "env": [*env(ray_variables(spec)), *_secret_variables(spec)],
        "resources": {"requests": amounts, "limits": amounts},
        "securityContext": security_context(),
        "volumeMounts": [{"name": "shared-memory", "mountPath": "/dev/shm"}],  # noqa: S108
    }


def _template(resource: Resource, container: Json, pod: Json) -> Json:
    spec = resource.spec
    metadata: Json = {"labels": {**spec.pod_labels, **naming.labels(resource.name)}}
    if spec.pod_annotations:
        metadata["annotations"] = spec.pod_annotations
    if spec.image.pull_secrets:
        pod = {**pod, "imagePullSecrets": [{"name": secret.name} for secret in spec.image.pull_secrets]}
    memory = {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": str(spec.shared_memory)}}
    return {
        "metadata": metadata,
        "spec": {**pod, "containers": [container], "volumes": [memory]},
    }


def _claims(spec: Spec) -> dict[str, str]:
    """Names of volumes, by the claims of model and LoRAs."""
    claims = [
        uri.removeprefix("pvc://").split("/", 1)[0] for uri in spec.weight_uris() if uri.startswith("pvc://")
    ]
    return {
        claim: f"model-{number}" if number else "model" for number, claim in enumerate(dict.fromkeys(claims))
    }


def _model_volumes(spec: Spec) -> list[Json]:
    return [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
        for claim, volume in _claims(spec).items()
    ]


def _model_mounts(spec: Spec) -> list[Json]:
    return [
        {"name": volume, "mountPath": f"{naming.MODELS_FOLDER}/{claim}", "readOnly": True}
        for claim, volume in _claims(spec).items()
    ]


def _threads(spec: Spec, group: WorkerGroup) -> list[Json]:
    """Threads of a CPU replica: all cores of its worker. Ray would allow one thread, because of the actor's num_cpus."""
    if spec.gpus_per_replica or any(each.name == _THREADS for each in spec.env):
        return []
    cpu = str(group.resources.cpu)
    cores = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    return [{"name": _THREADS, "value": str(max(1, math.floor(cores)))}]


def _secret_variables(spec: Spec) -> list[Json]:
    """Variables of `spec.env` with values in Secrets, by reference."""
    return [
        {"name": each.name, "valueFrom": each.value_from.model_dump(by_alias=True)}
        for each in spec.env
        if each.value_from is not None
    ]


def model_token(spec: Spec) -> list[Json]:
    """The variable with the token of the hub, by reference; empty without a Secret."""
    secret = spec.model.token_secret_ref
    if secret is None:
        return []
    reference = {"name": secret.name, "key": secret.key}
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": reference}}]
