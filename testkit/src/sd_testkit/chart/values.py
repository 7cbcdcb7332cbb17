# SPDX-License-Identifier: Apache-2.0
"""The values of the chart; source of `values.yaml` and `values.schema.json`.

Bounds of the operator's settings are not repeated here. `tests/chart/test_settings.py` checks the defaults against them,
and the operator reports an invalid setting when it starts.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
OptionalName = Annotated[str, Field(pattern="^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", max_length=253)]
Quantity = Annotated[str, Field(pattern=r"^[0-9]+(\.[0-9]+)?([EPTGMk]i?|m)?$", max_length=32)]
Interval = Annotated[str, Field(pattern="^[0-9]+(ms|s|m|h)$")]
NodeLabel = Annotated[
    str,
    Field(
        pattern="^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?(=[-._A-Za-z0-9]*)?$",
        max_length=381,
    ),
]
Labels = dict[str, str]
Free = dict[str, Any]


class Part(BaseModel):
    """Base of all values. Keys are camelCase in YAML; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )


class Reference(Part):
    """An object in the namespace of the release."""

    name: Name = Field(description="Name of the object.")


class Image(Part):
    """Image of the operator."""

    repository: str = Field(
        default="ghcr.io/sdservice/operator",
        pattern=r"^[a-z0-9.:_-]+(/[a-z0-9._-]+)*$",
        description="Repository, without tag and digest.",
    )
    tag: str = Field(
        default="",
        pattern="^([A-Za-z0-9_][-.A-Za-z0-9_]*)?$",
        max_length=128,
        description="Tag. If empty, the appVersion of the chart.",
    )
    digest: str = Field(
        default="",
        pattern="^(sha256:[0-9a-f]{64})?$",
        description="Digest, sha256:... If set, the tag is not used.",
    )
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="Pull policy: IfNotPresent, Always or Never."
    )
    pull_secrets: list[Reference] = Field(
        default=[],
        description="Secrets in the namespace of the release for a private registry: [{name: ...}].",
    )


class Crd(Part):
    """The CustomResourceDefinition. It is a template, because Helm does not upgrade a folder crds/."""

    install: bool = Field(
        default=True,
        description="Install and upgrade the CustomResourceDefinition. Set false if an administrator installs it.",
    )


class Rbac(Part):
    """Permissions of the operator and of users."""

    create: bool = Field(
        default=True, description="Create the operator's Roles. Set false if an administrator creates them."
    )
    cluster_reads: bool = Field(
        default=True,
        description=(
            "Allow the operator to read objects of the whole cluster even if watchNamespaces is set: nodes (to report which have"
            " the image), CustomResourceDefinitions (to detect a later KubeRay installation at once) and namespaces."
        ),
    )
    aggregate: bool = Field(
        default=True,
        description="Add StableDiffusionServices to the cluster roles view, edit and admin.",
    )


class ServiceAccount(Part):
    """ServiceAccount of the operator."""

    create: bool = Field(default=True, description="Create the ServiceAccount.")
    name: OptionalName = Field(
        default="",
        description="Name of the ServiceAccount. If empty: the name of all objects, or `default` if create is false.",
    )
    annotations: Labels = Field(default={}, description="Annotations of the ServiceAccount.")


class Runtime(Part):
    """Default runtime image, for services without spec.image."""

    repository: str = Field(
        default="ghcr.io/sdservice/worker", description="Repository, without tag and digest."
    )
    tag: str = Field(
        default="",
        pattern="^([A-Za-z0-9_][-.A-Za-z0-9_]*)?$",
        max_length=128,
        description="Tag. If empty, the appVersion of the chart.",
    )


class Preload(Part):
    """Preload pods, which keep images on nodes."""

    priority_class_name: OptionalName = Field(
        default="",
        description="PriorityClass of the preload pods. If empty, the default of the cluster.",
    )
    gpu_node_labels: Annotated[list[NodeLabel], Field(max_length=32)] = Field(
        default=[],
        description="Labels of GPU nodes in addition to the well-known ones, as key or key=value. Images for worker groups"
        " without a node selector are preloaded on these nodes.",
    )
    node_status_max_images: int = Field(
        default=50,
        ge=-1,
        description="nodeStatusMaxImages in the configuration of the kubelets. -1: the kubelets list all images.",
    )


class WarmPriorityClass(Part):
    """PriorityClass of the placeholder pods. It is a cluster-wide object."""

    create: bool = Field(default=True, description="Create the PriorityClass.")
    name: Name = Field(default="sdservice-warm", description="Name of the PriorityClass.")
    value: int = Field(
        default=-10,
        ge=-1000000000,
        le=0,
        description="Priority, lower than that of every worker. cluster-autoscaler adds no nodes for a priority below -10.",
    )


class Warm(Part):
    """Placeholder pods, which reserve capacity for spare workers (spec.imagePreload.warmNodes)."""

    image: str = Field(
        default="",
        description="Image of the placeholder pods, such as a pause image. If empty, the runtime image.",
    )
    priority_class: WarmPriorityClass = Field(
        default=WarmPriorityClass(), description=str(WarmPriorityClass.__doc__)
    )


class Ray(Part):
    """Connections of the operator to Ray, and the namespace of KubeRay."""

    kuberay_namespace: OptionalName = Field(
        default="",
        description="Namespace of KubeRay. NetworkPolicies allow its operator to connect to Ray's dashboards. If empty, any"
        " namespace.",
    )
    through_api_server: bool = Field(
        default=False,
        description=(
            "Connect to Ray's dashboards and to services through the proxy of the API server. Use this if the network blocks"
            " connections from the operator to pods. The operator then needs the permission to get services/proxy."
        ),
    )


class Reconciling(Part):
    """Concurrency, rates and intervals of reconciliation."""

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
    resync_seconds: int = Field(
        default=300,
        ge=1,
        le=3600,
        description="Seconds between two resyncs, which find changes that the watches missed.",
    )
    full_resync_seconds: int = Field(
        default=21600,
        ge=1,
        le=86400,
        description="Seconds between two full resyncs, which reconcile every service.",
    )
    request_timeout_seconds: int = Field(
        default=20, ge=1, le=30, description="Timeout of a request to the API server, in seconds."
    )
    retry_base_seconds: float = Field(
        default=0.5,
        gt=0,
        le=60,
        description="Seconds until the first retry after a failure of a service. The delay doubles with each failure.",
    )
    retry_cap_seconds: int = Field(
        default=60, ge=1, le=3600, description="Maximum delay between two retries, in seconds."
    )


class Amounts(Part):
    """Amounts of CPU and memory."""

    cpu: Quantity | None = Field(default=None, description="CPU cores.")
    memory: Quantity | None = Field(default=None, description="Memory.")


class Resources(Part):
    """CPU and memory of the operator's container."""

    requests: Amounts = Field(default=Amounts(cpu="50m", memory="128Mi"), description="Resource requests.")
    limits: Amounts = Field(
        default=Amounts(cpu="2", memory="512Mi"),
        description="Resource limits. The operator uses about 250 MB for 10,000 services.",
    )


class DisruptionBudget(Part):
    """PodDisruptionBudget of the operator. It is created only with two replicas; with one it would block node drains."""

    enabled: bool = Field(default=True, description="Create the PodDisruptionBudget.")


class Pod(Part):
    """Pods of the operator."""

    labels: Labels = Field(default={}, description="Additional labels.")
    annotations: Labels = Field(default={}, description="Additional annotations.")
    node_selector: Labels = Field(default={}, description="Labels that a node must have.")
    tolerations: list[Free] = Field(default=[], description="Taints that the pods tolerate.")
    affinity: Free = Field(default={}, description="Affinity, as in a Pod.")
    priority_class_name: OptionalName = Field(default="", description="PriorityClass of the pods.")
    termination_grace_period_seconds: int = Field(
        default=30, ge=1, description="Seconds that a pod has to finish its work before it is killed."
    )


class PodMonitor(Part):
    """PodMonitors for the Prometheus operator. The cluster must have its kinds (monitoring.coreos.com/v1)."""

    enabled: bool = Field(default=False, description="Create a PodMonitor for the pods of the operator.")
    services: bool = Field(
        default=False,
        description="Create a PodMonitor for the pods of all services (port `metrics` of KubeRay's containers).",
    )
    labels: Labels = Field(
        default={}, description="Additional labels, by which a Prometheus selects PodMonitors."
    )
    interval: Interval = Field(default="30s", description="Interval between two scrapes.")


class Alerts(Part):
    """Alerts, as a PrometheusRule (monitoring.coreos.com/v1)."""

    enabled: bool = Field(default=False, description="Create the PrometheusRule.")
    labels: Labels = Field(default={}, description="Additional labels, by which a Prometheus selects rules.")
    cold_start_seconds: int = Field(
        default=900,
        ge=1,
        description="Alert if the 90th percentile of worker starts in 6 hours takes longer than this, in seconds.",
    )
    failing_percent: int = Field(
        default=5,
        ge=1,
        le=100,
        description="Alert if more than this percentage of the requests of a service is answered with 5xx.",
    )


class Dashboards(Part):
    """Grafana dashboards, as a ConfigMap for Grafana's sidecar."""

    enabled: bool = Field(default=False, description="Create the ConfigMap.")
    labels: Labels = Field(
        default={"grafana_dashboard": "1"},
        description="Labels by which the sidecar finds the ConfigMap.",
    )
    annotations: Labels = Field(
        default={}, description="Annotations of the ConfigMap, such as the folder in Grafana."
    )


class Monitoring(Part):
    """Monitoring: PodMonitors, alerts and dashboards."""

    pod_monitor: PodMonitor = Field(default=PodMonitor(), description=str(PodMonitor.__doc__))
    alerts: Alerts = Field(default=Alerts(), description=str(Alerts.__doc__))
    dashboards: Dashboards = Field(default=Dashboards(), description=str(Dashboards.__doc__))


class NetworkPolicy(Part):
    """NetworkPolicy for the pods of the operator."""

    enabled: bool = Field(default=True, description="Create the NetworkPolicy.")
    metrics_from: list[Free] = Field(
        default=[{"namespaceSelector": {}}],
        description="Peers that may scrape the metrics, as in a NetworkPolicy.",
    )


class Tests(Part):
    """`helm test` creates a suspended service, waits until the operator accepts it, and deletes it."""

    namespace: OptionalName = Field(
        default="",
        description="Namespace of the test service. If empty: the first watched namespace, or the namespace of the release.",
    )
    timeout_seconds: int = Field(
        default=120,
        ge=1,
        le=3600,
        description="Seconds until the test fails without an answer of the operator.",
    )


class Values(Part):
    """Values of the chart stable-diffusion-operator."""

    fullname_override: Annotated[str, Field(pattern="^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=40)] = (
        Field(
            default="",
            description="Name of all objects. If empty: the name of the release followed by the name of the chart.",
        )
    )
    image: Image = Field(default=Image(), description=str(Image.__doc__))
    replicas: int = Field(
        default=1,
        ge=1,
        le=2,
        description="Number of pods of the operator. With 2, one pod is active, and the other takes over within 20 s.",
    )
    leader_election: bool = Field(
        default=True,
        description="Use a Lease, so that only one pod is active. False is allowed only with one replica.",
    )
    watch_namespaces: list[Name] = Field(
        default=[],
        description="Namespaces to watch. They must exist, and each gets a Role. If empty: all namespaces, with a ClusterRole.",
    )
    watch_own_namespace: bool = Field(
        default=False,
        description="Watch only the namespace of the release. It cannot be combined with watchNamespaces.",
    )
    crd: Crd = Field(default=Crd(), description=str(Crd.__doc__))
    rbac: Rbac = Field(default=Rbac(), description=str(Rbac.__doc__))
    service_account: ServiceAccount = Field(default=ServiceAccount(), description=str(ServiceAccount.__doc__))
    runtime: Runtime = Field(default=Runtime(), description=str(Runtime.__doc__))
    preload: Preload = Field(default=Preload(), description=str(Preload.__doc__))
    warm: Warm = Field(default=Warm(), description=str(Warm.__doc__))
    ray: Ray = Field(default=Ray(), description=str(Ray.__doc__))
    node_cache_directory: str = Field(
        default="",
        pattern="^(/[^/]+)*$",
        description=(
            "Directory of the nodes in which services may store weights (spec.model.cache.nodeDirectory), a hostPath."
            " If empty, services cannot use nodeDirectory."
        ),
    )
    reconciling: Reconciling = Field(default=Reconciling(), description=str(Reconciling.__doc__))
    log_format: Literal["plain", "json"] = Field(
        default="json", description="Format of the logs: plain or json."
    )
    resources: Resources = Field(default=Resources(), description=str(Resources.__doc__))
    pod: Pod = Field(default=Pod(), description=str(Pod.__doc__))
    pod_disruption_budget: DisruptionBudget = Field(
        default=DisruptionBudget(), description=str(DisruptionBudget.__doc__)
    )
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        default=[443, 6443],
        min_length=1,
        description=(
            "Ports on which pods reach the API server: the port of its Service and the port of its endpoints. NetworkPolicies"
            " open them for the operator and for Ray's heads."
        ),
    )
    network_policy: NetworkPolicy = Field(default=NetworkPolicy(), description=str(NetworkPolicy.__doc__))
    monitoring: Monitoring = Field(default=Monitoring(), description=str(Monitoring.__doc__))
    tests: Tests = Field(default=Tests(), description=str(Tests.__doc__))
    global_: Free = Field(
        default={},
        alias="global",
        description="Global values of a parent chart. This chart does not use them.",
    )
