# SPDX-License-Identifier: Apache-2.0
"""Builds the volume for downloaded weights and compiled code, and the variables that name it to the runtime."""

from sd_operator import naming
from sd_operator.api import Resource, Spec
from sd_operator.errors import InvalidResource, Problem
from sd_operator.json_types import Json
from sd_operator.settings import Settings

_VOLUME = "cache"


def cache_volume(resource: Resource, settings: Settings) -> Json:
    """The volume of a pod for the cache.

    Raises:
        InvalidResource: the service uses nodeDirectory, and the operator's settings name no directory.
    """
    cache = resource.spec.model.cache
    if cache.persistent_volume_claim is not None:
        claim = {"claimName": cache.persistent_volume_claim.claim_name}
        return {"name": _VOLUME, "persistentVolumeClaim": claim}
    if cache.size is not None:
        claim_spec: Json = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": cache.size}},
            # This is the API server's default. Without it, the live object would differ from the desired one.
            "volumeMode": "Filesystem",
        }
        if cache.storage_class_name is not None:
            claim_spec["storageClassName"] = cache.storage_class_name
        return {"name": _VOLUME, "ephemeral": {"volumeClaimTemplate": {"spec": claim_spec}}}
    if cache.node_directory is not None:
        # The directory must exist and be writable for the user of the runtime. A directory created by the kubelet belongs to root.
        directory = {"path": _node_directory(resource, settings), "type": "Directory"}
        return {"name": _VOLUME, "hostPath": directory}
    return {"name": _VOLUME, "emptyDir": {}}


def is_filled_beforehand(spec: Spec) -> bool:
    """Whether weights must be downloaded to a cache that exists before the worker."""
    cache = spec.model.cache
    shared = cache.persistent_volume_claim is not None or cache.node_directory is not None
    return shared and any(uri.startswith("hf://") for uri in spec.weight_uris())


def cache_mount() -> Json:
    """The mount of the cache volume in a container."""
    return {"name": _VOLUME, "mountPath": naming.CACHE_FOLDER}


def cache_variables() -> dict[str, str]:
    """Variables with the folders in which Hugging Face's library and the runtime store their caches."""
    return {
        "HF_HOME": f"{naming.CACHE_FOLDER}/huggingface",
        naming.COMPILE_CACHE_VARIABLE: f"{naming.CACHE_FOLDER}/compiled",
    }


def cache_security(spec: Spec, user: int) -> Json:
    """The pod's security context, if the cache is on a claim; otherwise empty."""
    if spec.model.cache.persistent_volume_claim is None and spec.model.cache.size is None:
        return {}
    return {"securityContext": volume_security(user)}


def volume_security(user: int) -> Json:
    """Security context of a pod that writes to a claim. It makes the files writable for the user of the runtime."""
    return {"fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}


def _node_directory(resource: Resource, settings: Settings) -> str:
    if not settings.node_cache_directory:
        rule = (
            "this operator does not allow node directories (SDSERVICE_NODE_CACHE_DIRECTORY is not set):"
            " use persistentVolumeClaim or size"
        )
        problem = Problem("spec.model.cache.nodeDirectory", None, rule)
        raise InvalidResource(resource.name, (problem,))
    return settings.node_cache_directory
