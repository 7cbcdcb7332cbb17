# SPDX-License-Identifier: Apache-2.0
"""Metadata of the operator's objects: name, labels and owner. Objects are deleted together with their owner."""

from typing import Any

from sd_operator import naming
from sd_operator.api import KIND, Resource
from sd_operator.api.resource import API_VERSION


def owned_metadata(resource: Resource, name: str) -> dict[str, Any]:
    """Metadata of an object that the resource owns. Without a uid (in `render`) the object has no owner."""
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": resource.namespace,
        "labels": naming.labels(resource.name),
    }
    if resource.uid:
        metadata["ownerReferences"] = [owner_reference(resource)]
    return metadata


def owner_reference(resource: Resource) -> dict[str, Any]:
    """The owner reference. Garbage collection uses it to delete the objects, even while the operator does not run."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": resource.name,
        "uid": resource.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def user_reference(resource: Resource) -> dict[str, Any]:
    """The owner reference for an object that several services share. The object is deleted with the last service."""
    reference = owner_reference(resource)
    # Only one owner may be the controller, and a shared object must not block the deletion of a service.
    return {key: reference[key] for key in ("apiVersion", "kind", "name", "uid")}
