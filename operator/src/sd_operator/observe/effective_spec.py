# SPDX-License-Identifier: Apache-2.0
"""The effective spec: the values of a spec on which a status depends (pure).

It is computed from the current spec. While the current spec is refused, it is read back from the RayService of an earlier
spec, which still runs. `tests/operator/observe/test_effective_spec.py` checks that both ways give the same result.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from sd_operator.api import Spec
from sd_operator.api.capacity import replicas_per_worker
from sd_operator.api.serving import Autoscaling, Limits
from sd_operator.api.status import ModelStatus
from sd_operator.builders.preload import brings_images
from sd_operator.builders.ray_service import STRATEGIES
from sd_operator.builders.serve_config import serve_config
from sd_operator.json_types import Json
from sd_operator.naming import MODEL_DEPLOYMENT


@dataclass(frozen=True)
class EffectiveSpec:
    """The values of a spec on which a status depends.

    Attributes:
        config: the Serve config.
        image: reference of the runtime image.
        low: minimum of model replicas; `high` is the maximum.
        hold_seconds: how long a request waits while a replica starts from zero.
        downscale_seconds: how long load must be low before a replica is removed.
        idle_seconds: how long a worker without a replica is kept.
        groups: replicas per worker, by worker group.
        preloads: whether the image is preloaded on nodes.
        strategy: the upgrade strategy, as the spec names it.
        ray_version: the Ray version in the RayService, from which KubeRay derives its commands; empty if it has none.
    """

    suspend: bool
    config: Json
    model: ModelStatus
    image: str
    low: int
    high: int
    hold_seconds: int
    downscale_seconds: int
    idle_seconds: int
    groups: Mapping[str, int]
    preloads: bool
    strategy: str
    ray_version: str = ""


def of_spec(spec: Spec, image: str, *, in_place: bool = False) -> EffectiveSpec:
    """The effective spec of a spec.

    Args:
        spec: the spec.
        image: reference of its runtime image.
        in_place: replicas are replaced in place, because no node became available for an additional worker.
    """
    source = spec.source()
    return EffectiveSpec(
        suspend=spec.suspend,
        config=serve_config(spec, in_place=in_place),
        model=ModelStatus(uri=source.uri or "", revision=source.revision),
        image=image,
        low=spec.replicas.min,
        high=spec.replicas.max,
        hold_seconds=spec.limits.cold_start_timeout_seconds,
        downscale_seconds=spec.autoscaling.downscale_delay_seconds,
        idle_seconds=spec.autoscaling.idle_worker_seconds,
        groups={group.name: replicas_per_worker(spec, group) for group in spec.worker_groups},
        preloads=spec.image_preload.mode == "External" or brings_images(spec),
        strategy=spec.upgrade.strategy,
        ray_version=spec.image.ray_version,
    )


def of_ray_service(live: Json, *, preloads: bool) -> EffectiveSpec:
    """The effective spec of a live RayService.

    An earlier release may have written the RayService, so the code relies on no field in it.

    Args:
        live: the RayService.
        preloads: whether the service has preload DaemonSets.
    """
    spec = live["spec"]
    config = _parsed(spec.get("serveConfigV2", ""))
    application = _first(config.get("applications"))
    deployments = {each.get("name"): each for each in application.get("deployments") or []}
    model = deployments.get(MODEL_DEPLOYMENT) or {}
    scaling, limits = _at(model, "autoscaling_config"), _at(model, "user_config", "limits")
    source, cluster = _at(application, "args", "model"), spec.get("rayClusterConfig") or {}
    groups = cluster.get("workerGroupSpecs") or []
    return EffectiveSpec(
        suspend=spec.get("suspend", False),
        config=config,
        model=ModelStatus(uri=source.get("uri", ""), revision=source.get("revision")),
        image=_first(_at(_first(groups), "template", "spec").get("containers")).get("image", ""),
        low=scaling.get("min_replicas", 1),
        high=scaling.get("max_replicas", 1),
        hold_seconds=limits.get(
            "cold_start_timeout_seconds", Limits.model_fields["cold_start_timeout_seconds"].default
        ),
        downscale_seconds=scaling.get(
            "downscale_delay_s", Autoscaling.model_fields["downscale_delay_seconds"].default
        ),
        idle_seconds=_at(cluster, "autoscalerOptions").get(
            "idleTimeoutSeconds", Autoscaling.model_fields["idle_worker_seconds"].default
        ),
        groups={each["groupName"]: int(_at(each, "rayStartParams").get("num-cpus", 1)) for each in groups},
        preloads=preloads,
        strategy=_strategy(spec),
        ray_version=str(cluster.get("rayVersion", "")),
    )


def moves_in_steps(live: Json) -> bool:
    """Whether requests to a RayService move in steps from cluster to cluster, through a Gateway."""
    return _strategy(live["spec"]) == "Incremental"


def _strategy(spec: Json) -> str:
    strategies = {theirs: ours for ours, theirs in STRATEGIES.items()}
    return strategies.get(_at(spec, "upgradeStrategy").get("type", ""), "NewCluster")


def _parsed(text: str) -> Json:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    return found if isinstance(found, dict) else {}


def _at(value: Json, *path: str) -> Json:
    for key in path:
        value = value.get(key) or {}
    return value


def _first(values: list[Json] | None) -> Json:
    return values[0] if values else {}
