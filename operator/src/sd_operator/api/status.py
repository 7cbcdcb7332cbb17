# SPDX-License-Identifier: Apache-2.0
"""`status`: the observed state of the service, computed from scratch in each pass. The reasons are a closed list."""

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from sd_operator.api.base import Model
from sd_operator.api.fields import KeyedList

Text = Annotated[str, Field(max_length=1024)]


class ConditionType(StrEnum):
    """The types of conditions, in the order in which they are shown."""

    READY = "Ready"
    ACCEPTED = "Accepted"
    IMAGES_PRELOADED = "ImagesPreloaded"
    MODEL_AVAILABLE = "ModelAvailable"
    CONFIG_APPLIED = "ConfigApplied"
    SCHEDULABLE = "Schedulable"
    UPGRADING = "Upgrading"
    SUSPENDED = "Suspended"


class Reason(StrEnum):
    """The reason of a condition: one word that a script can test."""

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
    """One condition of the service, with its reason, a message and the time of the last change."""

    type: Annotated[str, Field(max_length=64)] = Field(description="Type of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="True, False or Unknown.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Reason in one word, for scripts.")
    message: Text = Field(description="Explanation for a person.")
    last_transition_time: Annotated[str, Field(max_length=32)] = Field(
        description="Time when the status last changed, in UTC.",
        json_schema_extra={"format": "date-time"},
    )
    observed_generation: int = Field(
        ge=0, description="Generation of the resource that the condition was computed from."
    )


class ReplicaStatus(Model):
    """Numbers of model replicas, from Ray Serve and the pods."""

    ready: int = Field(default=0, ge=0, description="Replicas that can serve requests now.")
    desired: int = Field(default=0, ge=0, description="Replicas that Ray Serve wants now.")
    min: int = Field(default=0, ge=0, description="Minimum from the spec.")
    max: int = Field(default=0, ge=0, description="Maximum from the spec.")
    summary: Annotated[str, Field(max_length=64)] = Field(default="", description="ready/desired (min-max).")


class WorkerStatus(Model):
    """Workers of one group."""

    group: Annotated[str, Field(max_length=63)] = Field(description="Name of the group.")
    ready: int = Field(ge=0, description="Worker pods that are ready.")
    desired: int = Field(ge=0, description="Worker pods that exist.")


class ImageStatus(Model):
    """Preload state of one image."""

    image: Annotated[str, Field(max_length=512)] = Field(description="Reference of the image.")
    digest: Annotated[str, Field(max_length=128)] | None = Field(
        default=None, description="Digest of the image on most of the nodes."
    )
    nodes_ready: int = Field(default=0, ge=0, description="Nodes that have the image.")
    nodes_matched: int = Field(default=0, ge=0, description="Nodes that should have the image.")
    nodes_unknown: int = Field(
        default=0, ge=0, description="Nodes that do not report all of their images. Only in mode External."
    )
    message: Text | None = Field(default=None, description="The problem, for a person.")


class PreloadStatus(Model):
    """Preload state of the images. Nodes that are not ready or are cordoned do not count."""

    nodes_ready: int = Field(default=0, ge=0, description="Nodes that have all images.")
    nodes_matched: int = Field(default=0, ge=0, description="Nodes that the worker groups select.")
    summary: Annotated[str, Field(max_length=64)] = Field(default="", description="nodesReady/nodesMatched.")
    waiting_since: Annotated[str, Field(max_length=32)] | None = Field(
        default=None,
        description="Time since which a change waits for the runtime image, in UTC. Unset if no change waits.",
        json_schema_extra={"format": "date-time"},
    )
    images: Annotated[tuple[ImageStatus, ...], KeyedList("image", max_length=16)] = Field(
        default=(),
        description="State of each image: the runtime image first; last, images in use until a change is complete.",
    )


Seconds = Annotated[float, Field(ge=0)]


class ColdStart(Model):
    """The last start of a worker, from the pod to the first ready replica. The phases, in order, add up to the total."""

    worker: Annotated[str, Field(max_length=63)] = Field(description="Name of the worker pod.")
    ready_at: Annotated[str, Field(max_length=32)] = Field(
        description="Time when the first replica of the worker was ready, in UTC.",
        json_schema_extra={"format": "date-time"},
    )
    total_seconds: Seconds = Field(
        description="Seconds from the creation of the pod until its first replica was ready."
    )
    node_seconds: Seconds = Field(description="Seconds until the pod had a node.")
    image_seconds: Seconds = Field(
        description="Seconds until the first container ran: volumes and image pull."
    )
    ray_seconds: Seconds = Field(
        description="Seconds until the replica started to load weights: head, Ray, placement by Ray Serve, imports."
    )
    weights_seconds: Seconds = Field(
        description="Seconds until the weights were complete: download, or check of the cache."
    )
    pipeline_seconds: Seconds = Field(description="Seconds until the pipeline was on its device.")
    compile_seconds: Seconds = Field(
        default=0, description="Seconds for compilation and CUDA graphs; 0 if both are off."
    )
    warmup_seconds: Seconds = Field(
        default=0, description="Seconds to generate the pictures of `warmup`; 0 without shapes."
    )
    first_picture_seconds: Seconds | None = Field(
        default=None,
        description="Seconds for the first requested picture; not part of the total. Unset if none was requested in ten minutes.",
    )


class WarmStatus(Model):
    """Placeholder pods that reserve capacity for spare workers."""

    ready: int = Field(default=0, ge=0, description="Placeholder pods that run now.")
    desired: int = Field(default=0, ge=0, description="Placeholder pods from the spec.")
    summary: Annotated[str, Field(max_length=64)] = Field(default="", description="ready/desired.")
    message: Text | None = Field(default=None, description="The problem, for a person.")


class ModelStatus(Model):
    """The model in use."""

    uri: Text = Field(description="Location of the weights.")
    revision: Annotated[str, Field(max_length=255)] | None = Field(
        default=None,
        description="The commit that replicas have loaded. Until a replica reports it, the revision of the spec.",
    )
    batching: Literal["step", "none"] | None = Field(
        default=None,
        description="step: images of many requests share each denoising step. none: the model's pipeline generates one image"
        " at a time. Absent until a replica reports it.",
    )


Conditions = Annotated[tuple[Condition, ...], KeyedList("type", max_length=16)]


class Status(Model):
    """The observed state of the service."""

    observed_generation: int = Field(
        default=0, ge=0, description="Generation of the resource that the status was computed from."
    )
    conditions: Conditions = Field(default=(), description="Conditions of the service, Ready first.")
    url: Text | None = Field(
        default=None,
        description="URL for requests: the Service inside the cluster, or the Gateway with `upgrade.strategy: Incremental`.",
    )
    replicas: ReplicaStatus | None = Field(default=None, description="Numbers of model replicas.")
    selector: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="Label selector of the worker pods, for the scale subresource."
    )
    workers: Annotated[tuple[WorkerStatus, ...], Field(max_length=8)] = Field(
        default=(), description="Workers of each group."
    )
    preload: PreloadStatus | None = Field(default=None, description="Preload state of the images.")
    warm_nodes: WarmStatus | None = Field(
        default=None, description="Placeholder pods that reserve capacity for spare workers."
    )
    cold_start: ColdStart | None = Field(default=None, description="Duration of the last start of a worker.")
    model: ModelStatus | None = Field(default=None, description="The model in use.")
    image: Annotated[str, Field(max_length=512)] | None = Field(
        default=None, description="The runtime image in use."
    )
    ray_service: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Name of the RayService of this service."
    )
    active_ray_cluster: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Name of the RayCluster that serves now."
    )


def recorded_status(live: Mapping[str, Any]) -> Status:
    """The stored status of a live resource, without fields of another version that this version cannot read."""
    stored = live.get("status") or {}
    try:
        return Status.model_validate_json(json.dumps(stored))
    except ValidationError as error:
        unreadable = {each["loc"][0] for each in error.errors() if each["loc"]}
    try:
        return Status.model_validate_json(
            json.dumps({key: value for key, value in stored.items() if key not in unreadable})
        )
    except ValidationError:
        return Status()
