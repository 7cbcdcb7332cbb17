# SPDX-License-Identifier: Apache-2.0
"""Settings of the operator, from environment variables `SDSERVICE_*`; read once, passed as an argument."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sd_operator import __version__


def _listed(value: object) -> object:
    """`a, b` as it stands in an environment variable."""
    if not isinstance(value, str):
        return value
    return tuple(filter(None, (part.strip() for part in value.split(","))))


_PREFIX = r"([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/)?"
_WORD = r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"
NodeLabel = Annotated[str, StringConstraints(pattern=f"^{_PREFIX}{_WORD}(=({_WORD})?)?$")]


class Settings(BaseSettings):
    """What a platform team decides once per installation."""

    model_config = SettingsConfigDict(env_prefix="SDSERVICE_", frozen=True)

    runtime_repository: str = Field(
        default="ghcr.io/sdservice/worker", description="Runtime image of services that name none."
    )
    runtime_tag: str = Field(
        default=__version__, description="Tag of that image: the operator's own release."
    )
    preload_priority_class: str = Field(
        default="", description="PriorityClass of preload pods; empty: the cluster's default."
    )
    gpu_node_labels: Annotated[tuple[NodeLabel, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        max_length=32,
        description="Labels of nodes with GPUs beside the well-known ones, as key or key=value, separated by commas: a group"
        " without a selector of its own has its image preloaded there.",
    )
    node_status_max_images: int = Field(
        default=50,
        ge=-1,
        description="Images that the kubelets list at most (their nodeStatusMaxImages); -1: all.",
    )
    warm_priority_class: str = Field(
        default="sdservice-warm",
        description="PriorityClass of the placeholders of spare workers; below that of every worker.",
    )
    warm_image: str = Field(
        default="", description="Image of the placeholders, such as a pause image; empty: the runtime image."
    )
    watch_namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), description="Namespaces to serve, separated by commas; empty: all."
    )
    watch_own_namespace: bool = Field(
        default=False, description="Serve the operator's own namespace only; needs `namespace`."
    )
    cluster_reads: bool = Field(
        default=True,
        description="Watch what belongs to the whole cluster: kinds that come and go, and namespaces. False where this is"
        " not permitted: then a KubeRay that is installed later is heard of after a restart.",
    )
    namespace: str = Field(
        default="", description="Namespace the operator runs in; a pod gets it from metadata.namespace."
    )
    leader_election: bool = Field(
        default=False,
        description="Take a Lease in `namespace` before writing anything, so that one of several operators does.",
    )
    pod_name: str = Field(
        default="",
        description="Who holds the Lease; a pod gets it from metadata.name. Empty: host and process.",
    )
    workers: int = Field(default=8, ge=1, le=64, description="Services reconciled at the same time.")
    rollout_at_once: int = Field(
        default=1,
        ge=1,
        le=10000,
        description="Services that get a new cluster at the same time because the operator gives pods something else, such as"
        " a new default image; edits do not wait.",
    )
    passes_per_second: float = Field(
        default=100,
        gt=0,
        le=10000,
        description="Services reconciled per second over time; twice as many at once. Services that a start finds as they should"
        " be do not count.",
    )
    resync_seconds: float = Field(
        default=300, ge=1, le=3600, description="Seconds between two looks for changes that no watch told of."
    )
    full_resync_seconds: float = Field(
        default=21600, ge=1, le=86400, description="Seconds between two passes over every service."
    )
    request_timeout_seconds: float = Field(
        default=20, ge=1, le=30, description="Seconds until a request to the API server is given up."
    )
    retry_base_seconds: float = Field(
        default=0.5, gt=0, le=60, description="Pause after a first failure of a service; it doubles."
    )
    retry_cap_seconds: float = Field(
        default=60, ge=1, le=3600, description="Longest pause between two tries."
    )
    dashboard_url: str = Field(
        default="http://{cluster}-head-svc.{namespace}.svc:8265",
        description=(
            "Address of the dashboard of a RayCluster; empty: dashboards and services are asked through the API server's"
            " service proxy."
        ),
    )
    proxy_url: str = Field(
        default="http://{cluster}-head-svc.{namespace}.svc:8000",
        description="Address of the proxy on the head of a RayCluster, where replicas tell of their start; unused where"
        " `dashboard_url` is empty.",
    )
    kuberay_namespace: str = Field(
        default="",
        description="Namespace of KubeRay, whose operator may ask dashboards; empty: pods of its label in any namespace.",
    )
    api_server_ports: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(443, 6443),
        description="Ports by which pods reach the API server, separated by commas: that of its Service, and its own.",
    )
    node_cache_directory: str = Field(
        default="",
        pattern="^(/[^/]+)*$",
        description=(
            "Directory of the nodes that services may keep weights in (`model.cache.nodeDirectory`): there, writable for"
            " user 1000; their namespaces must allow hostPath. Empty: none may."
        ),
    )
    probe_port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz; 0 turns it off.")
    metrics_port: int = Field(
        default=8081, ge=0, le=65535, description="Port of /metrics for Prometheus; 0 turns it off."
    )
    log_format: str = Field(default="plain", pattern="^(plain|json)$", description="plain or json.")

    @model_validator(mode="after")
    def _scope_is_one(self) -> Self:
        if self.watch_own_namespace and self.watch_namespaces:
            raise ValueError(
                "SDSERVICE_WATCH_OWN_NAMESPACE and SDSERVICE_WATCH_NAMESPACES exclude each other"
            )
        if self.watch_own_namespace and not self.namespace:
            raise ValueError("SDSERVICE_WATCH_OWN_NAMESPACE needs SDSERVICE_NAMESPACE")
        if self.leader_election and not self.namespace:
            raise ValueError("SDSERVICE_LEADER_ELECTION needs SDSERVICE_NAMESPACE")
        return self

    @property
    def served_namespaces(self) -> tuple[str, ...]:
        """The namespaces to serve; none: all."""
        return (self.namespace,) if self.watch_own_namespace else self.watch_namespaces
