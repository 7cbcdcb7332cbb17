# SPDX-License-Identifier: Apache-2.0
"""The volume that downloaded weights and compiled code are kept on, and how the runtime is told of it."""

from sd_operator import naming
from sd_operator.api import Resource, Spec
from sd_operator.errors import InvalidResource, Problem
from sd_operator.json_types import Json
from sd_operator.settings import Settings

_VOLUME = "cache"


def cache_volume(resource: Resource, settings: Settings) -> Json:
    """The pod's volume.

    Raises:
        InvalidResource: the operator allows no directory of the node.
    """
    cache = resource.spec.model.cache
    if cache.persistent_volume_claim is not None:
        claim = {"claimName": cache.persistent_volume_claim.claim_name}
        return {"name": _VOLUME, "persistentVolumeClaim": claim}
    if cache.size is not None:
        wanted: Json = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": cache.size}},
            # Left to the API server's default it would seem to differ.
            "volumeMode": "Filesystem",
        }
        if cache.storage_class_name is not None:
            wanted["storageClassName"] = cache.storage_class_name
        return {"name": _VOLUME, "ephemeral": {"volumeClaimTemplate": {"spec": wanted}}}
    if cache.node_directory is not None:
        # It must be there and be writable for the runtime's user: one that the kubelet makes belongs to root.
        directory = {"path": _node_directory(resource, settings), "type": "Directory"}
        return {"name": _VOLUME, "hostPath": directory}
    return {"name": _VOLUME, "emptyDir": {}}


def is_filled_beforehand(spec: Spec) -> bool:
    """Whether there is something to download, to a place that is there before the worker."""
    cache = spec.model.cache
    shared = cache.persistent_volume_claim is not None or cache.node_directory is not None
    return shared and any(uri.startswith("hf://") for uri in spec.weight_uris())


def cache_mount() -> Json:
    """The container's mount."""
    return {"name": _VOLUME, "mountPath": naming.CACHE_FOLDER}


def cache_variables() -> dict[str, str]:
    """Where Hugging Face's library and the runtime keep what they must not make twice."""
    return {
        "HF_HOME": f"{naming.CACHE_FOLDER}/huggingface",
        naming.COMPILE_CACHE_VARIABLE: f"{naming.CACHE_FOLDER}/compiled",
    }


def cache_security(spec: Spec, user: int) -> Json:
    """The pod's security context, where a claim holds the cache."""
    if spec.model.cache.persistent_volume_claim is None and spec.model.cache.size is None:
        return {}
    return {"securityContext": volume_security(user)}


def volume_security(user: int) -> Json:
    """Security context of a pod that writes to a claim: its files are the runtime user's."""
    return {"fsGroup": user, "fsGroupChangePolicy": "OnRootMismatch"}


def _node_directory(resource: Resource, settings: Settings) -> str:
    if not settings.node_cache_directory:
        rule = (
            "this operator lets no service use a directory of its node (SDSERVICE_NODE_CACHE_DIRECTORY is not set):"
            " use persistentVolumeClaim or size"
        )
        problem = Problem("spec.model.cache.nodeDirectory", None, rule)
        raise InvalidResource(resource.name, (problem,))
    return settings.node_cache_directory
