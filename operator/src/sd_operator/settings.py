# SPDX-License-Identifier: Apache-2.0
"""Settings of the operator, from environment variables `SDSERVICE_*`. They are read once and passed as an argument."""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, StringConstraints, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from sd_operator import __version__


def _listed(value: object) -> object:
    """Split `a, b`, the form of a list in an environment variable."""
    if not isinstance(value, str):
        return value
    return tuple(filter(None, (part.strip() for part in value.split(","))))


_PREFIX = r"([a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?/)?"
_WORD = r"[A-Za-z0-9]([-._A-Za-z0-9]{0,61}[A-Za-z0-9])?"
NodeLabel = Annotated[str, StringConstraints(pattern=f"^{_PREFIX}{_WORD}(=({_WORD})?)?$")]


class Settings(BaseSettings):
    """The settings of one installation, chosen by the platform team."""

    model_config = SettingsConfigDict(env_prefix="SDSERVICE_", frozen=True)

    runtime_repository: str = Field(
        default="ghcr.io/sdservice/worker",
        description="Repository of the runtime image, for services without spec.image.repository.",
    )
    runtime_tag: str = Field(
        default=__version__, description="Default tag of the runtime image: the operator's own release."
    )
    preload_priority_class: str = Field(
        default="", description="PriorityClass of preload pods. If empty, the default of the cluster."
    )
    gpu_node_labels: Annotated[tuple[NodeLabel, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(),
        max_length=32,
        description="Labels of GPU nodes in addition to the well-known ones, as key or key=value, separated by commas. Images"
        " for worker groups without a node selector are preloaded on these nodes.",
    )
    node_status_max_images: int = Field(
        default=50,
        ge=-1,
        description="nodeStatusMaxImages in the configuration of the kubelets. -1: the kubelets list all images.",
    )
    warm_priority_class: str = Field(
        default="sdservice-warm",
        description="PriorityClass of the placeholder pods for spare workers. Its value must be lower than that of every worker.",
    )
    warm_image: str = Field(
        default="",
        description="Image of the placeholder pods, such as a pause image. If empty, the runtime image.",
    )
    watch_namespaces: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), description="Namespaces to watch, separated by commas. If empty, all namespaces."
    )
    watch_own_namespace: bool = Field(
        default=False, description="Watch only the operator's own namespace. It needs `namespace`."
    )
    cluster_reads: bool = Field(
        default=True,
        description="Watch CustomResourceDefinitions and namespaces of the whole cluster. Set false if the operator lacks this"
        " permission. Then it detects a later installation of KubeRay only after a restart.",
    )
    namespace: str = Field(
        default="", description="Namespace of the operator. In a pod, it comes from metadata.namespace."
    )
    leader_election: bool = Field(
        default=False,
        description="Acquire a Lease in `namespace` before any write, so that only one of several operators is active.",
    )
    pod_name: str = Field(
        default="",
        description="Holder of the Lease. In a pod, it comes from metadata.name. If empty, host name and process id.",
    )
    workers: int = Field(
        default=8, ge=1, le=64, description="Number of services that are reconciled at the same time."
    )
    rollout_at_once: int = Field(
        default=1,
        ge=1,
        le=10000,
        description="Number of services that get a new cluster at the same time when the operator itself changes their pods, such"
        " as with a new default image. Edits of a service do not wait.",
    )
    passes_per_second: float = Field(
        default=100,
        gt=0,
        le=10000,
        description="Average number of services reconciled per second. A burst may have twice as many. Services that need no"
        " change when the operator starts do not count.",
    )
    resync_seconds: float = Field(
        default=300,
        ge=1,
        le=3600,
        description="Seconds between two resyncs, which find changes that the watches missed.",
    )
    full_resync_seconds: float = Field(
        default=21600,
        ge=1,
        le=86400,
        description="Seconds between two full resyncs, which reconcile every service.",
    )
    request_timeout_seconds: float = Field(
        default=20, ge=1, le=30, description="Timeout of a request to the API server, in seconds."
    )
    retry_base_seconds: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description="Seconds until the first retry after a failure of a service. The delay doubles with each failure.",
    )
    retry_cap_seconds: float = Field(
        default=60, ge=1, le=3600, description="Maximum delay between two retries, in seconds."
    )
    dashboard_url: str = Field(
        default="http://{cluster}-head-svc.{namespace}.svc:8265",
        description=(
            "URL of the dashboard of a RayCluster. If empty, the operator connects to dashboards and services through the"
            " proxy of the API server."
        ),
    )
    proxy_url: str = Field(
        default="http://{cluster}-head-svc.{namespace}.svc:8000",
        description="URL of the Serve proxy on the head of a RayCluster, from which the operator reads the reports of starting"
        " replicas. It is not used if `dashboard_url` is empty.",
    )
    kuberay_namespace: str = Field(
        default="",
        description="Namespace of KubeRay. NetworkPolicies allow its operator to connect to Ray's dashboards. If empty, any"
        " namespace.",
    )
    api_server_ports: Annotated[tuple[int, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(443, 6443),
        description="Ports on which pods reach the API server, separated by commas: the port of its Service and the port of its"
        " endpoints.",
    )
    node_cache_directory: str = Field(
        default="",
        pattern="^(/[^/]+)*$",
        description=(
            "Directory of the nodes in which services may store weights (`model.cache.nodeDirectory`). It must exist and be"
            " writable for user 1000, and the namespaces must allow hostPath. If empty, services cannot use nodeDirectory."
        ),
    )
    probe_port: int = Field(
        default=8080, ge=0, le=65535, description="Port of /healthz and /readyz. 0 turns it off."
    )
    metrics_port: int = Field(
        default=8081, ge=0, le=65535, description="Port of /metrics for Prometheus. 0 turns it off."
    )
    log_format: str = Field(
        default="plain", pattern="^(plain|json)$", description="Format of the logs: plain or json."
    )

    @model_validator(mode="after")
    def _scope_is_one(self) -> Self:
        if self.watch_own_namespace and self.watch_namespaces:
            raise ValueError(
                "SDSERVICE_WATCH_OWN_NAMESPACE and SDSERVICE_WATCH_NAMESPACES cannot both be set: remove one of them"
            )
        if self.watch_own_namespace and not self.namespace:
            raise ValueError("SDSERVICE_WATCH_OWN_NAMESPACE needs SDSERVICE_NAMESPACE")
        if self.leader_election and not self.namespace:
            raise ValueError("SDSERVICE_LEADER_ELECTION needs SDSERVICE_NAMESPACE")
        return self

    @property
    def served_namespaces(self) -> tuple[str, ...]:
        """The namespaces to watch. An empty tuple means all namespaces."""
        return (self.namespace,) if self.watch_own_namespace else self.watch_namespaces
