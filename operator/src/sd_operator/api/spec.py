# SPDX-License-Identifier: Apache-2.0
"""`spec`: all fields of a service, and the rules between them."""

from typing import Annotated

from pydantic import Field

from sd_operator.api.base import Model, Rule
from sd_operator.api.capacity import CAPACITY_RULES
from sd_operator.api.fields import Annotations, KeyedList, Labels, Memory, ObjectName, Text
from sd_operator.api.head import Head
from sd_operator.api.image import Image, ImagePreload
from sd_operator.api.model import PRESETS, ModelSource
from sd_operator.api.network import NetworkPolicy
from sd_operator.api.placement import MAX_WORKER_GROUPS, EnvVar, WorkerGroup
from sd_operator.api.serving import (
    Autoscaling,
    Batching,
    Defaults,
    Limits,
    Optimizations,
    Provenance,
    Replicas,
    ResultCache,
    Warmup,
)
from sd_operator.api.upgrade import Upgrade

GpuResourceName = Annotated[
    str,
    Text(
        r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[-._A-Za-z0-9]+$",
        "must be an extended resource such as nvidia.com/gpu",
        max_length=253,
    ),
]

WorkerGroups = Annotated[
    tuple[WorkerGroup, ...], KeyedList("name", max_length=MAX_WORKER_GROUPS, min_length=1)
]
Environment = Annotated[tuple[EnvVar, ...], KeyedList("name", max_length=32)]


_APPARMOR = "container.apparmor.security.beta.kubernetes.io/"
"""Prefix of annotations that the API server copies to fields of the pod's security context."""


def _defaults_allowed(spec: "Spec") -> bool:
    wanted, limits = spec.defaults, spec.limits
    width, height = wanted.width or 64, wanted.height or 64
    return (
        max(width, height) <= limits.max_side
        and width * height <= limits.max_pixels
        and (wanted.steps or 1) <= limits.max_steps
    )


def _warmup_allowed(spec: "Spec") -> bool:
    limits = spec.limits
    return all(
        max(shape.width, shape.height) <= limits.max_side and shape.width * shape.height <= limits.max_pixels
        for shape in spec.warmup.shapes
    )


class Spec(Model):
    """The desired state of an image-generation service."""

    rules = (
        *CAPACITY_RULES,
        Rule(
            cel="self.gpusPerReplica <= 1",
            holds=lambda s: s.gpus_per_replica <= 1,
            message=(
                "must be 0 or 1: a replica uses one GPU or the CPU, and more GPUs would be idle; raise replicas.max for more"
                " throughput"
            ),
            field=".gpusPerReplica",
        ),
        Rule(
            cel="self.replicasPerGpu == 1 || self.gpusPerReplica == 1",
            holds=lambda s: s.replicas_per_gpu == 1 or s.gpus_per_replica == 1,
            message="replicasPerGpu above 1 needs gpusPerReplica: 1: set gpusPerReplica to 1, or replicasPerGpu to 1",
            field=".replicasPerGpu",
        ),
        Rule(
            cel="!has(self.model.quantization) || self.gpusPerReplica > 0",
            holds=lambda s: s.model.quantization is None or s.gpus_per_replica > 0,
            message="quantization needs a GPU: remove it, or set gpusPerReplica: 1",
            field=".model.quantization",
        ),
        Rule(
            cel="self.imagePreload.mode == 'Disabled' || self.image.pullPolicy != 'Always'",
            holds=lambda s: s.image_preload.mode == "Disabled" or s.image.pull_policy != "Always",
            message=(
                "with pullPolicy Always a node pulls the image again after the preload: set image.pullPolicy to IfNotPresent, or"
                " imagePreload.mode to Disabled"
            ),
            field=".imagePreload",
        ),
        Rule(
            cel=(
                "(!has(self.defaults.width) || self.defaults.width <= self.limits.maxSide)"
                " && (!has(self.defaults.height) || self.defaults.height <= self.limits.maxSide)"
                " && (has(self.defaults.width) ? self.defaults.width : 64)"
                " * (has(self.defaults.height) ? self.defaults.height : 64) <= self.limits.maxPixels"
                " && (!has(self.defaults.steps) || self.defaults.steps <= self.limits.maxSteps)"
            ),
            holds=_defaults_allowed,
            message=(
                "the defaults must be within the limits: width and height within maxSide, their product within"
                " maxPixels, steps within maxSteps"
            ),
            field=".defaults",
        ),
        Rule(
            cel=(
                "self.warmup.shapes.all(s, s.width <= self.limits.maxSide && s.height <= self.limits.maxSide"
                " && s.width * s.height <= self.limits.maxPixels)"
            ),
            holds=_warmup_allowed,
            message=(
                "the shapes of warmup must be within the limits: width and height within maxSide, their product"
                " within maxPixels"
            ),
            field=".warmup",
        ),
        Rule(
            cel=f"self.podAnnotations.all(key, !key.startsWith('{_APPARMOR}'))",
            holds=lambda s: not any(key.startswith(_APPARMOR) for key in s.pod_annotations),
            message="AppArmor annotations are not allowed, because they change the confinement of the pods: remove them",
            field=".podAnnotations",
        ),
    )

    model: ModelSource = Field(description="The model of the service.")
    defaults: Defaults = Field(
        default=Defaults(),
        description="Defaults for parameters that a request omits. If unset, the defaults of the model.",
    )
    replicas: Replicas = Field(
        description="Minimum and maximum number of model replicas. Ray Serve scales between them."
    )
    gpus_per_replica: int = Field(
        default=1,
        ge=0,
        le=8,
        description="GPUs of one model replica: 1, or 0 to run on the CPU. Larger values are refused.",
    )
    replicas_per_gpu: int = Field(
        default=1, ge=1, le=8, description="Number of model replicas that share one GPU and its memory."
    )
    gpu_resource_name: GpuResourceName = Field(
        default="nvidia.com/gpu",
        description="Name of the GPU resource. Workers tolerate a taint with this key.",
    )
    worker_groups: WorkerGroups = Field(
        default=(WorkerGroup(name="gpu"),),
        description="Groups of workers, in order of preference. If unset: one group named gpu.",
    )
    head: Head = Field(
        default=Head(),
        description="The Ray head. It controls the cluster, routes requests and needs no GPU.",
    )
    image: Image = Field(default=Image(), description="The runtime image of head and workers.")
    service_account_name: ObjectName | None = Field(
        default=None,
        description="ServiceAccount of the worker pods, if the model source needs an identity.",
    )
    pod_labels: Labels = Field(default={}, description="Additional labels of the pods.")
    pod_annotations: Annotations = Field(default={}, description="Additional annotations of the pods.")
    env: Environment = Field(default=(), description="Environment variables of head and workers.")
    shared_memory: Memory = Field(
        default="2Gi",
        description="Size of /dev/shm in each pod. It counts towards the memory of the pod.",
    )
    image_preload: ImagePreload = Field(
        default=ImagePreload(),
        description="Pulling of images to the nodes of the worker groups before a worker needs them.",
    )
    autoscaling: Autoscaling = Field(
        default=Autoscaling(), description="When replicas and workers are added and removed."
    )
    batching: Batching = Field(
        default=Batching(), description="How a replica processes several pictures in one batch."
    )
    limits: Limits = Field(
        default=Limits(),
        description="Limits of a request. A request above a limit is answered with status 400.",
    )
    optimizations: Optimizations = Field(
        default=Optimizations(),
        description="Performance options. Benchmark on your GPU before you change them.",
    )
    warmup: Warmup = Field(
        default=Warmup(), description="Pictures that a replica generates before it accepts requests."
    )
    provenance: Provenance = Field(default=Provenance(), description="Metadata in picture files.")
    result_cache: ResultCache = Field(
        default=ResultCache(), description="Cache of pictures for repeated requests with a seed."
    )
    upgrade: Upgrade = Field(
        default=Upgrade(), description="What happens to the running cluster when its pods must change."
    )
    network_policy: NetworkPolicy = Field(
        default=NetworkPolicy(), description="NetworkPolicy for the pods of the service."
    )
    suspend: bool = Field(
        default=False, description="Delete all pods and keep the resource. false starts the pods again."
    )

    def source(self) -> ModelSource:
        """The model, with the values of the preset filled in."""
        known = PRESETS.get(self.model.preset or "")
        if known is None:
            return self.model
        return self.model.model_copy(
            update={"uri": known.uri, "revision": known.revision, "variant": known.variant, "preset": None}
        )

    def weight_uris(self) -> tuple[str, ...]:
        """URIs of the model and of all LoRAs."""
        source = self.source()
        return (source.uri or "", *(lora.uri for lora in source.loras))

    def plain_env(self) -> dict[str, str]:
        """Values of the variables without a Secret, by name."""
        return {each.name: each.value for each in self.env if each.value is not None}

    def target_ongoing_requests(self) -> int:
        """Ongoing requests per replica above which Ray Serve adds a replica. The default fills a batch."""
        return self.autoscaling.target_ongoing_requests or self.batching.max_batch_size

    def request_defaults(self) -> Defaults:
        """Defaults for parameters that a request omits: those of the spec, otherwise those of the preset."""
        known = PRESETS.get(self.model.preset or "")
        if known is None:
            return self.defaults
        return known.defaults.model_copy(update=self.defaults.model_dump(exclude_none=True))
