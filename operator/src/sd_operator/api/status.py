# SPDX-License-Identifier: Apache-2.0
"""`status`: what is true of the service, computed anew each time; the reasons are a closed list."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sd_operator.api.base import Model
from sd_operator.api.fields import KeyedList

Text = Annotated[str, Field(max_length=1024)]


class ConditionType(StrEnum):
    """The aspects of a service that have a condition, in the order they are shown."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    IMAGES_PRELOADED = "ImagesPreloaded"
    MODEL_AVAILABLE = "ModelAvailable"
    CONFIG_APPLIED = "ConfigApplied"
    SCHEDULABLE = "Schedulable"
    UPGRADING = "Upgrading"
    SUSPENDED = "Suspended"


class Reason(StrEnum):
    """Why a condition is what it is; one word a script can test."""

    ACCEPTED = "Accepted"
    APPLICATION_DEPLOYING = "ApplicationDeploying"
    APPLICATION_FAILED = "ApplicationFailed"
    APPLICATION_RUNNING = "ApplicationRunning"
    APPLICATION_UNHEALTHY = "ApplicationUnhealthy"
    CHANGES_IGNORED = "ChangesIgnored"
    CONFIG_DIFFERS = "ConfigDiffers"
    CONFIG_PENDING = "ConfigPending"
    CONTAINER_REFUSED = "ContainerRefused"
    CRASH_LOOPING = "CrashLooping"
    CREATING = "Creating"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    DEGRADED = "Degraded"
    DELAYS_TOO_SHORT = "DelaysTooShort"
    DISABLED = "Disabled"
    HEAD_NOT_READY = "HeadNotReady"
    IMAGES_PRESENT = "ImagesPresent"
    IMAGES_UNSEEN = "ImagesUnseen"
    IMAGE_LOST = "ImageLost"
    IMAGE_NOT_PRELOADED = "ImageNotPreloaded"
    IMAGE_PULL_FAILED = "ImagePullFailed"
    INVALID = "Invalid"
    KUBERAY_MISSING = "KubeRayMissing"
    KUBERAY_REFUSED = "KubeRayRefused"
    KUBERAY_TOO_OLD = "KubeRayTooOld"
    LOADED_WITH_WARNINGS = "LoadedWithWarnings"
    LORA_REFUSED = "LoraRefused"
    MODEL_FORBIDDEN = "ModelForbidden"
    MODEL_INVALID = "ModelInvalid"
    MODEL_LOADED = "ModelLoaded"
    MODEL_LOADING = "ModelLoading"
    MODEL_NOT_FOUND = "ModelNotFound"
    MODEL_NOT_LOADED = "ModelNotLoaded"
    MODEL_UNAVAILABLE = "ModelUnavailable"
    NAME_CONFLICT = "NameConflict"
    NEW_CLUSTER_STARTING = "NewClusterStarting"
    NO_ENDPOINTS = "NoEndpoints"
    NO_MATCHING_NODES = "NoMatchingNodes"
    NO_REPLICAS = "NoReplicas"
    PODS_REFUSED = "PodsRefused"
    PULLING = "Pulling"
    QUOTA_EXCEEDED = "QuotaExceeded"
    RAY_VERSION_DIFFERS = "RayVersionDiffers"
    REFUSED = "Refused"
    REPLACING_IN_PLACE = "ReplacingInPlace"
    RUNNING = "Running"
    SCALED_TO_ZERO = "ScaledToZero"
    SCHEDULED = "Scheduled"
    SERVING = "Serving"
    SHORT_OF_GPUS = "ShortOfGpus"
    STARTING = "Starting"
    SUSPENDED = "Suspended"
    SUSPENDING = "Suspending"
    UNSCHEDULABLE = "Unschedulable"
    UPGRADE_FAILED = "UpgradeFailed"
    UP_TO_DATE = "UpToDate"
    WAITING_FOR_DELETION = "WaitingForDeletion"
    WAITING_FOR_IMAGES = "WaitingForImages"
    WAITING_FOR_OTHERS = "WaitingForOthers"
    WAITING_FOR_WEIGHTS = "WaitingForWeights"
    WAKING = "Waking"


class Condition(Model):
    """One aspect, true or false, why, and since when."""

    type: Annotated[str, Field(max_length=64)] = Field(description="The aspect.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why, in one word.")
    message: Text = Field(description="Why, for a person.")
    last_transition_time: Annotated[str, Field(max_length=32)] = Field(
        description="Since when the status is what it is, in UTC.",
        json_schema_extra={"format": "date-time"},
    )
    observed_generation: int = Field(ge=0, description="Generation of the resource this was computed from.")


class ReplicaStatus(Model):
    """Model replicas, as Ray Serve and the pods show them."""

    ready: int = Field(default=0, ge=0, description="Replicas that can draw now.")
    desired: int = Field(default=0, ge=0, description="Replicas asked for now.")
    min: int = Field(default=0, ge=0, description="Floor from the spec.")
    max: int = Field(default=0, ge=0, description="Ceiling from the spec.")
    summary: Annotated[str, Field(max_length=64)] = Field(default="", description="ready/desired (min-max).")


class WorkerStatus(Model):
    """Workers of one group."""

    group: Annotated[str, Field(max_length=63)] = Field(description="Name of the group.")
    ready: int = Field(ge=0, description="Worker pods that are ready.")
    desired: int = Field(ge=0, description="Worker pods there are.")


class ImageStatus(Model):
    """One image on the nodes."""

    image: Annotated[str, Field(max_length=512)] = Field(description="Its reference.")
    digest: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="What the reference means on most of the nodes."
    )
    nodes_ready: int = Field(default=0, ge=0, description="Nodes that hold it.")
    nodes_matched: int = Field(default=0, ge=0, description="Nodes that it should be on.")
    nodes_unknown: int = Field(default=0, ge=0, description="Nodes that do not tell; only in mode External.")
    message: Text | None = Field(default=None, description="What is in the way, for a person.")


class PreloadStatus(Model):
    """How far the images are on the nodes; nodes that are not ready or are cordoned do not count."""

    nodes_ready: int = Field(default=0, ge=0, description="Nodes that hold all images.")
    nodes_matched: int = Field(default=0, ge=0, description="Nodes that the worker groups select.")
    summary: Annotated[str, Field(max_length=64)] = Field(default="", description="nodesReady/nodesMatched.")
    waiting_since: Annotated[str, Field(max_length=32)] | None = Field(
        default=None,
        description="Since when a change waits for the first of the images, in UTC; absent: nothing waits.",
        json_schema_extra={"format": "date-time"},
    )
    images: Annotated[tuple[ImageStatus, ...], KeyedList("image", max_length=16)] = Field(
        default=(),
        description="Each image, the runtime image first, and last those that serve until a change is through.",
    )


Seconds = Annotated[float, Field(ge=0)]


class ColdStart(Model):
    """The last start of a worker, from its pod to a replica that can draw: the phases, in order, add up to the total."""

    worker: Annotated[str, Field(max_length=63)] = Field(description="Name of the worker pod.")
    ready_at: Annotated[str, Field(max_length=32)] = Field(
        description="When its first replica could draw, in UTC.",
        json_schema_extra={"format": "date-time"},
    )
    total_seconds: Seconds = Field(description="From the pod's creation until its first replica could draw.")
    node_seconds: Seconds = Field(description="Until the pod had a node.")
    image_seconds: Seconds = Field(
        description="From there until its first container ran: volumes, and the pull of the image."
    )
    ray_seconds: Seconds = Field(
        description="Until the replica turned to the weights: the wait for the head, Ray, Serve's placing, imports."
    )
    weights_seconds: Seconds = Field(
        description="Until the weights were there: download, or a look at the cache."
    )
    pipeline_seconds: Seconds = Field(description="Until the pipeline was on its device.")
    compile_seconds: Seconds = Field(
        default=0, description="Compiling and capturing; 0 where neither is asked for."
    )
    warmup_seconds: Seconds = Field(
        default=0, description="Drawing the sizes of `warmup`; 0 where there are none."
    )
    first_picture_seconds: Seconds | None = Field(
        default=None,
        description="What its first picture took once a request came; not part of the total. Absent if none came within ten minutes.",
    )


class WarmStatus(Model):
    """Places kept for spare workers."""

    ready: int = Field(default=0, ge=0, description="Places that are kept now.")
    desired: int = Field(default=0, ge=0, description="Places asked for.")
    summary: Annotated[str, Field(max_length=64)] = Field(default="", description="ready/desired.")
    message: Text | None = Field(default=None, description="What is in the way, for a person.")


class ModelStatus(Model):
    """The weights in use."""

    uri: Text = Field(description="Where they come from.")
    revision: Annotated[str, Field(max_length=255)] | None = Field(
        default=None,
        description="The commit that replicas have loaded; before they report it, the revision of the spec.",
    )
    batching: Literal["step", "none"] | None = Field(
        default=None,
        description="step: images of many requests share each denoising step. none: the model's pipeline generates one image"
        " at a time. Absent until a replica reports it.",
    )


Conditions = Annotated[tuple[Condition, ...], KeyedList("type", max_length=16)]


class Status(Model):
    """What is true of the service."""

    observed_generation: int = Field(default=0, ge=0, description="Generation this status was computed from.")
    conditions: Conditions = Field(default=(), description="The aspects of the service, Ready first.")
    url: Text | None = Field(
        default=None,
        description="Where requests go: the Service inside the cluster, or the Gateway of `upgrade.strategy: Incremental`.",
    )
    replicas: ReplicaStatus | None = Field(default=None, description="Model replicas.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Label selector of the worker pods, for the scale subresource."
    )
    workers: Annotated[tuple[WorkerStatus, ...], Field(max_length=8)] = Field(
        default=(), description="Workers of each group."
    )
    preload: PreloadStatus | None = Field(default=None, description="How far the images are on the nodes.")
    warm_nodes: WarmStatus | None = Field(default=None, description="Places kept for spare workers.")
    cold_start: ColdStart | None = Field(
        default=None, description="How long the last start of a worker took."
    )
    model: ModelStatus | None = Field(default=None, description="The weights in use.")
    image: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="The runtime image asked for."
    )
    ray_service: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="The RayService of this resource."
    )
    active_ray_cluster: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="The RayCluster that serves now."
    )


def recorded_status(live: Mapping[str, Any]) -> Status:
    """The status on record of a live resource, without the fields of another version that this one cannot read."""
    told = live.get("status") or {}
    try:
        return Status.model_validate_json(json.dumps(told))
    except ValidationError as error:
        unreadable = {each["loc"][0] for each in error.errors() if each["loc"]}
    try:
        return Status.model_validate_json(
            json.dumps({key: value for key, value in told.items() if key not in unreadable})
        )
    except ValidationError:
        return Status()
