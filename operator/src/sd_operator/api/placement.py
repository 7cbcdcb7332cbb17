# SPDX-License-Identifier: Apache-2.0
"""Where pods run: worker groups, and the words Kubernetes has for placement."""

import re
from typing import Annotated, Literal

from pydantic import Field

from sd_operator.api.affinity import Affinity
from sd_operator.api.base import Model, Rule
from sd_operator.api.fields import (
    Cpu,
    GroupName,
    LabelKey,
    Labels,
    LabelValue,
    Memory,
    ObjectName,
    Text,
)
from sd_operator.api.model import SecretKeyRef

MAX_WORKER_GROUPS = 8


class Resources(Model):
    """CPU and memory of a pod; requested and limited alike, so a pod gets what it was promised."""

    cpu: Cpu = Field(default="4", description="CPU cores, such as 4 or 500m.")
    memory: Memory = Field(default="16Gi", description="Memory, such as 16Gi.")


class Toleration(Model):
    """A taint that a pod accepts, as in a Pod."""

    rules = (
        Rule(
            cel="self.operator != 'Exists' || !has(self.value)",
            holds=lambda t: t.operator != "Exists" or t.value is None,
            message="operator Exists takes no value: remove value or use Equal",
            field=".value",
        ),
        Rule(
            cel="self.operator == 'Exists' || has(self.key)",
            holds=lambda t: t.operator == "Exists" or t.key is not None,
            message="operator Equal needs a key",
        ),
    )

    key: LabelKey | None = Field(
        default=None, description="Key of the taint; absent with Exists: every taint."
    )
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How value is compared.")
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; absent: every effect."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = Field(
        default=None, description="Seconds to stay after a NoExecute taint appears; absent: for ever."
    )


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=16)]


class WorkerGroup(Model):
    """A pool of equal workers on which model replicas run."""

    rules = (
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            holds=lambda g: (
                g.min_replicas is None or g.max_replicas is None or g.min_replicas <= g.max_replicas
            ),
            message="minReplicas must not be above maxReplicas: lower minReplicas or raise maxReplicas",
            field=".minReplicas",
        ),
    )

    name: GroupName = Field(description="Name of the group, at most 15 characters; part of its pods' names.")
    min_replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description=(
            "Workers kept when idle. Absent: the groups keep, in their order, what replicas.min needs beyond the"
            " minReplicas of the others."
        ),
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Workers at full load. Absent: as many as replicas.max needs in this group alone, or minReplicas.",
    )
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] | None = Field(
        default=None, description="GPUs of one worker pod. Absent: gpusPerReplica, one replica per worker."
    )
    resources: Resources = Field(default=Resources(), description="CPU and memory of one worker pod.")
    node_selector: Labels = Field(default={}, description="Labels a node must have.")
    tolerations: Tolerations = Field(
        default=(), description="Taints the workers accept; the GPU resource's own taint is always accepted."
    )
    affinity: Affinity | None = Field(default=None, description="Scheduling preferences, as in a Pod.")
    capacity_type: Literal["on-demand", "spot"] | None = Field(
        default=None,
        description="Nodes to buy where Karpenter or EKS says so: on-demand or spot. Absent: any.",
    )
    runtime_class_name: ObjectName | None = Field(
        default=None, description="RuntimeClass of the worker pods, such as nvidia."
    )
    priority_class_name: ObjectName | None = Field(
        default=None, description="PriorityClass of the worker pods."
    )


EnvName = Annotated[
    str,
    Text(
        r"^(HF_ENDPOINT|HF_HUB_[A-Z_]+|HTTP_PROXY|HTTPS_PROXY|NO_PROXY|SSL_CERT_FILE|TZ|AWS_REGION"
        r"|(OMP|MKL|NCCL|CUDA|TORCH|PYTORCH|RAY_SERVE|OTEL)_[A-Z0-9_]+)$",
        "is not on the allow-list: HF_ENDPOINT, HF_HUB_*, HTTP_PROXY, HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, TZ,"
        " AWS_REGION, OMP_*, MKL_*, NCCL_*, CUDA_*, TORCH_*, PYTORCH_*, RAY_SERVE_*, OTEL_*",
        max_length=128,
    ),
]


_HEADERS = r"^OTEL_EXPORTER_[A-Z0-9_]*HEADERS$"
"""Variables with the credentials of whoever collects traces: OTEL_EXPORTER_OTLP_HEADERS, and those of one signal."""


_HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


class EnvSource(Model):
    """Where the value of a variable is kept."""

    secret_key_ref: SecretKeyRef = Field(description="Key of a Secret in the namespace of the service.")


class EnvVar(Model):
    """An environment variable of the head and the workers."""

    rules = (
        Rule(
            cel=f"has(self.valueFrom) == self.name.matches('{_HEADERS}')",
            holds=lambda e: (e.value_from is not None) == bool(re.search(_HEADERS, e.name)),
            message=(
                "headers of an OTLP exporter carry credentials: set valueFrom.secretKeyRef for OTEL_EXPORTER_*HEADERS, and"
                " value for every other variable"
            ),
        ),
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            holds=lambda e: (e.value is None) != (e.value_from is None),
            message="a variable has either value or valueFrom: set one of them",
        ),
        Rule(
            cel=f"self.name != '{_HA_PROXY}' || !has(self.value) || self.value != '1'",
            holds=lambda e: (e.name, e.value) != (_HA_PROXY, "1"),
            message=(
                f"{_HA_PROXY}: Ray's HAProxy stops requests that still run 120 s after the ingress was replaced (ray#66056), and"
                " its errors are no JSON: remove the variable"
            ),
        ),
        Rule(
            cel=f"self.name != '{_CALLBACK}'",
            holds=lambda e: e.name != _CALLBACK,
            message=f"{_CALLBACK}: the runtime image sets it for its HTTP errors and limits: remove the variable",
        ),
    )

    name: EnvName = Field(description="Name, from the allow-list of tuning, tracing and network variables.")
    value: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="Value; secrets do not belong here."
    )
    value_from: EnvSource | None = Field(
        default=None, description="A Secret with the value; for OTEL_EXPORTER_*HEADERS alone."
    )
