# SPDX-License-Identifier: Apache-2.0
"""`spec.image` and `spec.imagePreload`: the runtime image and how it gets to the nodes beforehand."""

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
        "must be an image with its tag or digest, such as ghcr.io/owner/name:1.2",
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
    """The runtime image of head and workers; absent fields: the image released with the operator."""

    repository: Repository | None = Field(default=None, description="Repository, such as ghcr.io/owner/name.")
    tag: Tag | None = Field(default=None, description="Tag.")
    digest: Digest | None = Field(default=None, description="Digest; it wins over the tag.")
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="When a node pulls the image; Always defeats every preload."
    )
    pull_secrets: Annotated[tuple[LocalObject, ...], Field(max_length=8)] = Field(
        default=(), description="Secrets of this namespace for private registries."
    )
    ray_version: RayVersion = Field(
        default="2.60.0", description="Version of Ray inside the image; KubeRay derives its commands from it."
    )


class ImagePreload(Model):
    """Bringing images to the nodes of the worker groups before a worker needs them.

    A DaemonSet per worker group runs the images themselves, with tiny requests and no GPU, on the nodes that the
    group selects. It helps nodes that exist; a node that an autoscaler adds pulls for pod and preload at once.
    """

    rules = (
        Rule(
            cel="self.mode != 'Disabled' || size(self.images) == 0",
            holds=lambda p: p.mode != "Disabled" or not p.images,
            message="mode Disabled preloads nothing: remove images, or choose another mode",
            field=".images",
        ),
    )

    mode: Literal["Disabled", "Opportunistic", "Required", "External"] = Field(
        default="Opportunistic",
        description=(
            "Opportunistic: pull and report, never wait. Required: a RayService gets a new image once all nodes there"
            " are hold it. External: something else brings the images; nodes are asked whether it did. Disabled: none."
        ),
    )
    timeout_seconds: int = Field(
        default=1800,
        ge=10,
        le=86400,
        description="Seconds after which mode Required tells that the image is late; it goes on waiting.",
    )
    images: Annotated[tuple[ImageReference, ...], Field(max_length=8)] = Field(
        default=(),
        description="Further images to bring along, each kept by a container that runs its `sleep`.",
    )
    warm_nodes: int = Field(
        default=0,
        ge=0,
        le=64,
        description="Places for spare workers of the first group, kept free by pods that any worker evicts.",
    )
