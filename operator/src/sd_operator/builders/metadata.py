# SPDX-License-Identifier: Apache-2.0
"""The metadata that makes an object ours: name, labels, and the owner whose deletion takes it along."""

from typing import Any

from sd_operator import naming
from sd_operator.api import KIND, Resource
from sd_operator.api.resource import API_VERSION


def owned_metadata(resource: Resource, name: str) -> dict[str, Any]:
    """Metadata of an object owned by the resource; without a uid (`render`) it has no owner."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": resource.namespace,
        "labels": naming.labels(resource.name),
    }
    if resource.uid:
        metadata["ownerReferences"] = [owner_reference(resource)]
    return metadata


def owner_reference(resource: Resource) -> dict[str, Any]:
    """The reference by which garbage collection finds our objects, operator running or not."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def user_reference(resource: Resource) -> dict[str, Any]:
    """The reference of one of several services that share an object: it goes when the last of them goes."""
    reference = owner_reference(resource)
    # At most one owner may control an object, and none of those that share it blocks the deletion of another one.
    return {key: reference[key] for key in ("apiVersion", "kind", "name", "uid")}
