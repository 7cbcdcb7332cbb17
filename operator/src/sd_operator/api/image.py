# SPDX-License-Identifier: Apache-2.0
"""`spec.image` and `spec.imagePreload`: the runtime image, and its preload onto nodes."""

from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.base import Model, Rule
from sd_operator.api.fields import ObjectName, Text

Repository = Annotated[
    str,
    Text(
        r"^[a-z0-9.:_-]+(/[a-z0-9._-]+)*$",
        "must be an image repository such as ghcr.io/owner/name, without tag and digest",
        max_length=255,
    ),
]
Tag = Annotated[str, Text(r"^[A-Za-z0-9_][-.A-Za-z0-9_]*$", "must be an image tag", max_length=128)]
Digest = Annotated[
    str, Text(r"^sha256:[0-9a-f]{64}$", "must be sha256: and 64 hexadecimal characters", max_length=71)
]
ImageReference = Annotated[
    str,
    Text(
        r"^[a-z0-9.:_-]+(/[a-z0-9._-]+)*(:[A-Za-z0-9_][-.A-Za-z0-9_]*|@sha256:[0-9a-f]{64})$",
        "must be an image with a tag or digest, such as ghcr.io/owner/name:1.2",
        max_length=512,
    ),
]
RayVersion = Annotated[
    str,
    Text(r"^2[.](5[89]|[6-9][0-9])[.][0-9]+$", "must be Ray 2.58.0 or a later 2.x version", max_length=16),
]


class LocalObject(Model):
    """An object of the same namespace."""

    name: ObjectName = Field(description="Name of the object.")


class Image(Model):
    """The runtime image of head and workers. Unset fields default to the image released with the operator."""

    repository: Repository | None = Field(default=None, description="Repository, such as ghcr.io/owner/name.")
    tag: Tag | None = Field(default=None, description="Tag.")
    digest: Digest | None = Field(default=None, description="Digest. If set, the tag is not used.")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent",
        description="When a node pulls the image. Always needs imagePreload.mode Disabled.",
    )
    pull_secrets: Annotated[tuple[LocalObject, ...], Field(max_length=8)] = Field(
        default=(), description="Secrets in the namespace of the service for private registries."
    )
    ray_version: RayVersion = Field(
        default="2.60.0",
        description="Version of Ray in the image. KubeRay derives its commands from this version.",
    )


class ImagePreload(Model):
    """Pulling images to the nodes of the worker groups before a worker needs them.

    DaemonSets run the images, with tiny requests and no GPU, on the nodes that the worker groups select. This helps on
    existing nodes. On a node that an autoscaler adds, the worker and the preload pod pull the image at the same time.
    """

    rules = (
        Rule(
            cel="self.mode != 'Disabled' || size(self.images) == 0",
            holds=lambda p: p.mode != "Disabled" or not p.images,
            message="mode Disabled preloads no images: remove images, or choose another mode",
            field=".images",
        ),
    )

    mode: Literal["Disabled", "Opportunistic", "Required", "External"] = Field(
        default="Opportunistic",
        description=(
            "Opportunistic: pull and report, never wait. Required: a change waits until all existing nodes have the new image."
            " External: another tool puts the images on the nodes, and the operator only reports. Disabled: no preload."
        ),
    )
    timeout_seconds: int = Field(
        default=1800,
        ge=10,
        le=86400,
        description="Seconds until mode Required reports that an image is late. The change continues to wait.",
    )
    images: Annotated[tuple[ImageReference, ...], Field(max_length=8)] = Field(
        default=(),
        description="Additional images to preload. Each must contain the command `sleep`.",
    )
    warm_nodes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Number of placeholder pods that reserve capacity for workers of the first group. A new worker evicts one.",
    )
