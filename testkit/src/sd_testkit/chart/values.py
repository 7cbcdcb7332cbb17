# SPDX-License-Identifier: Apache-2.0
"""What may be set when the chart is installed; source of `values.yaml` and `values.schema.json`.

Bounds of the operator's settings are not repeated here: `tests/chart/test_settings.py` holds the defaults to them, and
the operator says at its start what it does not take.
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
    """Camel case outside; a value that is not known is refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, alias_generator=to_camel, validate_by_name=True
    )


class Reference(Part):
    """An object of the same namespace."""

    name: Name = Field(description="Its name.")


class Image(Part):
    """The operator's own image."""

    repository: str = Field(
        default="ghcr.io/sdservice/operator",
        pattern=r"^[a-z0-9.:_-]+(/[a-z0-9._-]+)*$",
        description="Repository, without tag and digest.",
    )
    tag: str = Field(
        default="",
        pattern="^([A-Za-z0-9_][-.A-Za-z0-9_]*)?$",
        max_length=128,
        description="Tag; empty: the chart's appVersion.",
    )
    digest: str = Field(
        default="", pattern="^(sha256:[0-9a-f]{64})?$", description="sha256:...; it wins over the tag."
    )
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = Field(
        default="IfNotPresent", description="IfNotPresent, Always or Never."
    )
    pull_secrets: list[Reference] = Field(
        default=[], description="Secrets of the operator's namespace for a private registry: [{name: ...}]."
    )


class Crd(Part):
    """The CustomResourceDefinition; upgraded with the release, which Helm does not do with a folder crds/."""

    install: bool = Field(
        default=True,
        description="Install and upgrade it; false where something else does, such as an administrator.",
    )


class Rbac(Part):
    """Permissions of the operator, and of users."""

    create: bool = Field(
        default=True, description="Create the operator's Roles; false where an administrator does."
    )
    cluster_reads: bool = Field(
        default=True,
        description=(
            "Also with watched namespaces: read nodes (preload tells which hold the image), CustomResourceDefinitions"
            " (a KubeRay installed later is noticed at once) and namespaces. All belong to the whole cluster."
        ),
    )
    aggregate: bool = Field(
        default=True,
        description="Let the cluster's roles view, edit and admin include StableDiffusionServices.",
    )


class ServiceAccount(Part):
    """The identity of the operator."""

    create: bool = Field(default=True, description="Create it.")
    name: OptionalName = Field(
        default="", description="Its name; empty: that of the release, or `default` if none is created."
    )
    annotations: Labels = Field(default={}, description="Annotations.")


class Runtime(Part):
    """The image of services that name none."""

    repository: str = Field(
        default="ghcr.io/sdservice/worker", description="Repository, without tag and digest."
    )
    tag: str = Field(
        default="",
        pattern="^([A-Za-z0-9_][-.A-Za-z0-9_]*)?$",
        max_length=128,
        description="Tag; empty: the chart's appVersion.",
    )


class Preload(Part):
    """Pods that keep images on nodes."""

    priority_class_name: OptionalName = Field(
        default="", description="Their PriorityClass; empty: the cluster's default."
    )
    gpu_node_labels: Annotated[list[NodeLabel], Field(max_length=32)] = Field(
        default=[],
        description="Labels of nodes with GPUs beside the well-known ones, each as key or key=value: the image of a worker"
        " group without a selector of its own is preloaded there.",
    )
    node_status_max_images: int = Field(
        default=50, ge=-1, description="nodeStatusMaxImages of the kubelets; -1: they list all images."
    )


class WarmPriorityClass(Part):
    """The PriorityClass of placeholders of spare workers; belongs to the whole cluster."""

    create: bool = Field(default=True, description="Create it.")
    name: Name = Field(default="sdservice-warm", description="Its name.")
    value: int = Field(
        default=-10,
        ge=-1000000000,
        le=0,
        description="Below that of every worker; -10 is the lowest that cluster-autoscaler still adds nodes for.",
    )


class Warm(Part):
    """Placeholders that keep places for spare workers (spec.imagePreload.warmNodes)."""

    image: str = Field(
        default="", description="Image of the placeholders, such as a pause image; empty: the runtime image."
    )
    priority_class: WarmPriorityClass = Field(
        default=WarmPriorityClass(), description=str(WarmPriorityClass.__doc__)
    )


class Ray(Part):
    """How the operator asks Ray, and where KubeRay is."""

    kuberay_namespace: OptionalName = Field(
        default="",
        description="Namespace of KubeRay, whose operator may ask dashboards; empty: pods of its label in any namespace.",
    )
    through_api_server: bool = Field(
        default=False,
        description=(
            "Ask dashboards and services through the API server's proxy instead of directly; for clusters whose network"
            " keeps the operator from pods. It needs the permission to get services/proxy."
        ),
    )


class Reconciling(Part):
    """Pace of the operator."""

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
    resync_seconds: int = Field(
        default=300, ge=1, le=3600, description="Seconds between two looks for changes that no watch told of."
    )
    full_resync_seconds: int = Field(
        default=21600, ge=1, le=86400, description="Seconds between two passes over every service."
    )
    request_timeout_seconds: int = Field(
        default=20, ge=1, le=30, description="Seconds until a request to the API server is given up."
    )
    retry_base_seconds: float = Field(
        default=0.5, gt=0, le=60, description="Pause after a first failure of a service; it doubles."
    )
    retry_cap_seconds: int = Field(
        default=60, ge=1, le=3600, description="Longest pause between two tries, in seconds."
    )


class Amounts(Part):
    """CPU and memory."""

    cpu: Quantity | None = Field(default=None, description="CPUs.")
    memory: Quantity | None = Field(default=None, description="Memory.")


class Resources(Part):
    """CPU and memory of the operator's container."""

    requests: Amounts = Field(
        default=Amounts(cpu="50m", memory="128Mi"), description="What is set aside for it."
    )
    limits: Amounts = Field(
        default=Amounts(cpu="2", memory="512Mi"),
        description="What it may use at most: 10,000 services take some 250 MB.",
    )


class DisruptionBudget(Part):
    """The PodDisruptionBudget; made where there are two replicas, since with one it would only block drains."""

    enabled: bool = Field(default=True, description="Make it.")


class Pod(Part):
    """The operator's pods."""

    labels: Labels = Field(default={}, description="Further labels.")
    annotations: Labels = Field(default={}, description="Further annotations.")
    node_selector: Labels = Field(default={}, description="Nodes they may run on.")
    tolerations: list[Free] = Field(default=[], description="Taints they bear.")
    affinity: Free = Field(default={}, description="Affinity.")
    priority_class_name: OptionalName = Field(default="", description="PriorityClass.")
    termination_grace_period_seconds: int = Field(
        default=30, ge=1, description="Seconds to finish what has begun."
    )


class PodMonitor(Part):
    """Objects for the Prometheus operator, whose kinds must be there (monitoring.coreos.com/v1)."""

    enabled: bool = Field(default=False, description="Make a PodMonitor of the operator's pods.")
    services: bool = Field(
        default=False,
        description="Make one of the pods of all services too (port metrics of KubeRay's containers).",
    )
    labels: Labels = Field(
        default={}, description="Further labels, by which a Prometheus selects PodMonitors."
    )
    interval: Interval = Field(default="30s", description="Time between two scrapes.")


class Alerts(Part):
    """Alerts as a PrometheusRule (monitoring.coreos.com/v1)."""

    enabled: bool = Field(default=False, description="Make it.")
    labels: Labels = Field(default={}, description="Further labels, by which a Prometheus selects rules.")
    cold_start_seconds: int = Field(
        default=900,
        ge=1,
        description="Start of a worker that is called slow: the 90th percentile of 6 hours.",
    )
    failing_percent: int = Field(
        default=5, ge=1, le=100, description="Share of requests answered 5xx that is called failing."
    )


class Dashboards(Part):
    """Grafana dashboards as a ConfigMap that Grafana's sidecar reads."""

    enabled: bool = Field(default=False, description="Make it.")
    labels: Labels = Field(
        default={"grafana_dashboard": "1"}, description="Labels by which the sidecar finds it."
    )
    annotations: Labels = Field(default={}, description="Annotations, such as the folder in Grafana.")


class Monitoring(Part):
    """What is watched, and how it is told."""

    pod_monitor: PodMonitor = Field(default=PodMonitor(), description=str(PodMonitor.__doc__))
    alerts: Alerts = Field(default=Alerts(), description=str(Alerts.__doc__))
    dashboards: Dashboards = Field(default=Dashboards(), description=str(Dashboards.__doc__))


class NetworkPolicy(Part):
    """Whom the operator's pods may talk to, and who may talk to them."""

    enabled: bool = Field(default=True, description="Make it.")
    metrics_from: list[Free] = Field(
        default=[{"namespaceSelector": {}}],
        description="Who may scrape the metrics: peers of a NetworkPolicy.",
    )


class Tests(Part):
    """`helm test`: makes a suspended service, waits until the operator has acted on it, and deletes it."""

    namespace: OptionalName = Field(
        default="",
        description="Where; empty: the first watched namespace, or that of the release.",
    )
    timeout_seconds: int = Field(
        default=120, ge=1, le=3600, description="Seconds after which the operator is given up."
    )


class Values(Part):
    """Values of the chart stable-diffusion-operator."""

    fullname_override: Annotated[str, Field(pattern="^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=40)] = (
        Field(
            default="",
            description="Name of all objects; empty: that of the release with the chart's.",
        )
    )
    image: Image = Field(default=Image(), description=str(Image.__doc__))
    replicas: int = Field(
        default=1,
        ge=1,
        le=2,
        description="Pods of the operator; with 2 one works, and the other takes over within 20 s of its loss.",
    )
    leader_election: bool = Field(
        default=True,
        description="Hold a Lease while working. False only with one replica: two that write would write everything twice.",
    )
    watch_namespaces: list[Name] = Field(
        default=[],
        description="Namespaces to serve, with a Role in each; they must exist. Empty: all, with a ClusterRole.",
    )
    watch_own_namespace: bool = Field(
        default=False, description="Serve the release's namespace only; excludes watchNamespaces."
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
            "Directory of the nodes that services may keep weights in (spec.model.cache.nodeDirectory), a hostPath."
            " Empty: none may."
        ),
    )
    reconciling: Reconciling = Field(default=Reconciling(), description=str(Reconciling.__doc__))
    log_format: Literal["plain", "json"] = Field(default="json", description="plain or json.")
    resources: Resources = Field(default=Resources(), description=str(Resources.__doc__))
    pod: Pod = Field(default=Pod(), description=str(Pod.__doc__))
    pod_disruption_budget: DisruptionBudget = Field(
        default=DisruptionBudget(), description=str(DisruptionBudget.__doc__)
    )
    api_server_ports: list[Annotated[int, Field(ge=1, le=65535)]] = Field(
        default=[443, 6443],
        min_length=1,
        description=(
            "Ports of the API server, as pods reach it: that of its Service, and its own. NetworkPolicies open them to the"
            " operator and to Ray's heads."
        ),
    )
    network_policy: NetworkPolicy = Field(default=NetworkPolicy(), description=str(NetworkPolicy.__doc__))
    monitoring: Monitoring = Field(default=Monitoring(), description=str(Monitoring.__doc__))
    tests: Tests = Field(default=Tests(), description=str(Tests.__doc__))
    global_: Free = Field(
        default={}, alias="global", description="Helm gives a chart the global values of its parent."
    )
