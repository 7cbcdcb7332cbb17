# SPDX-License-Identifier: Apache-2.0
"""Worker groups, and the fields of a Pod for resources, tolerations and environment variables."""

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
    """CPU and memory of a pod. Requests and limits are equal."""

    cpu: Cpu = Field(default="4", description="CPU cores, such as 4 or 500m.")
    memory: Memory = Field(default="16Gi", description="Memory, such as 16Gi.")


class Toleration(Model):
    """A taint that the pods tolerate, as in a Pod."""

    rules = (
        Rule(
            cel="self.operator != 'Exists' || !has(self.value)",
            holds=lambda t: t.operator != "Exists" or t.value is None,
            message="operator Exists has no value: remove value, or use operator Equal",
            field=".value",
        ),
        Rule(
            cel="self.operator == 'Exists' || has(self.key)",
            holds=lambda t: t.operator == "Exists" or t.key is not None,
            message="operator Equal needs a key: set key, or use operator Exists",
        ),
    )

    key: LabelKey | None = Field(
        default=None, description="Key of the taint. If unset, with operator Exists: all taints."
    )
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How `value` is compared.")
    value: LabelValue | None = Field(default=None, description="Value of the taint.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint. If unset, all effects."
    )
    toleration_seconds: Annotated[int, Field(ge=0, le=86400)] | None = Field(
        default=None,
        description="Seconds that a pod stays on a node after a NoExecute taint appears. If unset, forever.",
    )


Tolerations = Annotated[tuple[Toleration, ...], Field(max_length=16)]


class WorkerGroup(Model):
    """A group of workers with equal pods. Model replicas run on them."""

    rules = (
        Rule(
            cel="!has(self.minReplicas) || !has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
            holds=lambda g: (
                g.min_replicas is None or g.max_replicas is None or g.min_replicas <= g.max_replicas
            ),
            message="minReplicas must not exceed maxReplicas: lower minReplicas or raise maxReplicas",
            field=".minReplicas",
        ),
    )

    name: GroupName = Field(
        description="Name of the group, at most 15 characters. It is part of the names of the pods."
    )
    min_replicas: Annotated[int, Field(ge=0, le=1000)] | None = Field(
        default=None,
        description=(
            "Minimum number of workers. If unset: the workers that replicas.min needs beyond the minReplicas of the other"
            " groups, assigned to the groups in their order."
        ),
    )
    max_replicas: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None,
        description="Maximum number of workers. If unset: enough for replicas.max in this group alone, at least minReplicas.",
    )
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] | None = Field(
        default=None,
        description="GPUs of one worker pod. If unset: gpusPerReplica, so one replica per worker.",
    )
    resources: Resources = Field(default=Resources(), description="CPU and memory of one worker pod.")
    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: Tolerations = Field(
        default=(),
        description="Taints that the workers tolerate. The taint of the GPU resource is always tolerated.",
    )
    affinity: Affinity | None = Field(default=None, description="Scheduling preferences, as in a Pod.")
    capacity_type: Literal["on-demand", "spot"] | None = Field(
        default=None,
        description="Capacity type of the nodes, by the labels of Karpenter and EKS: on-demand or spot. If unset, any.",
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
"""Variables with credentials for the trace collector: OTEL_EXPORTER_OTLP_HEADERS, and its forms for one signal."""


_HA_PROXY = "RAY_SERVE_ENABLE_HA_PROXY"
_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"


class EnvSource(Model):
    """The source of the value of a variable."""

    secret_key_ref: SecretKeyRef = Field(description="Key of a Secret in the namespace of the service.")


class EnvVar(Model):
    """An environment variable of the head and the workers."""

    rules = (
        Rule(
            cel=f"has(self.valueFrom) == self.name.matches('{_HEADERS}')",
            holds=lambda e: (e.value_from is not None) == bool(re.search(_HEADERS, e.name)),
            message=(
                "headers of an OTLP exporter contain credentials: use valueFrom.secretKeyRef for OTEL_EXPORTER_*HEADERS, and"
                " value for every other variable"
            ),
        ),
        Rule(
            cel="has(self.value) != has(self.valueFrom)",
            holds=lambda e: (e.value is None) != (e.value_from is None),
            message="a variable needs either value or valueFrom: set exactly one of them",
        ),
        Rule(
            cel=f"self.name != '{_HA_PROXY}' || !has(self.value) || self.value != '1'",
            holds=lambda e: (e.name, e.value) != (_HA_PROXY, "1"),
            message=(
                f"{_HA_PROXY}: Ray's HAProxy aborts requests that still run 120 s after a replacement of the ingress (ray#66056),"
                " and its errors are not JSON: remove the variable"
            ),
        ),
        Rule(
            cel=f"self.name != '{_CALLBACK}'",
            holds=lambda e: e.name != _CALLBACK,
            message=f"{_CALLBACK}: the runtime image needs this variable for its HTTP errors and limits: remove it from env",
        ),
    )

    name: EnvName = Field(
        description="Name of the variable. Only variables for tuning, tracing and networking are allowed."
    )
    value: Annotated[str, Field(max_length=4096)] | None = Field(
        default=None, description="Value of the variable. Do not put secrets here."
    )
    value_from: EnvSource | None = Field(
        default=None, description="Secret with the value. Only for OTEL_EXPORTER_*HEADERS."
    )
