# SPDX-License-Identifier: Apache-2.0
"""Builds the Serve config. KubeRay PUTs it to Ray, and `sdservice run` PUTs it to a Ray on this machine.

`args` and `user_config` are the complete interface to the runtime image (sd_runtime.config). tests/contract checks both
sides. A change of `args` or `ray_actor_options` restarts replicas. A change of `user_config` reaches running replicas.
"""

import json
from functools import lru_cache

import yaml

from sd_operator import naming
from sd_operator.api import Spec
from sd_operator.api.capacity import most_replicas
from sd_operator.json_types import Json

_LEAST_GRACE_SECONDS = 30
_HANDOVER_SECONDS = (
    10  # Serve checks every two seconds whether a replica has finished; then the pictures are transferred
)
_INGRESS_ONGOING_REQUESTS = 1000
# The ingress writes its own log line for each request, with more details.
_LOGGING = {"enable_access_log": False}


def serve_config(spec: Spec, *, in_place: bool = False) -> Json:
    """The config with the one application, in the form of Ray's ServeDeploySchema.

    Args:
        spec: the spec of the service.
        in_place: an old replica stops before its successor starts, even if there is capacity for both.
    """
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": "0.0.0.0", "port": naming.SERVE_PORT},  # noqa: S104 - inside a pod
        "logging_config": _LOGGING,  # of Serve's proxies
        "applications": [
            {
                "name": naming.APPLICATION,
                "route_prefix": "/",
                "import_path": naming.IMPORT_PATH,
                "args": runtime_config(spec),
                "logging_config": _LOGGING,
                "deployments": [_ingress(spec), _model(spec, 0 if in_place else _surge_percent(spec))],
            }
        ],
    }


def serve_config_text(spec: Spec, *, in_place: bool = False) -> str:
    """The config as YAML text, as in a RayService."""
    return _yaml(json.dumps(serve_config(spec, in_place=in_place)))


@lru_cache(1024)
def _yaml(config: str) -> str:
    """Convert a Serve config from JSON to YAML. The cache helps, because this is the slowest computation of a reconcile."""
    return yaml.dump(json.loads(config), Dumper=yaml.CSafeDumper, sort_keys=False)


def has_surge(spec: Spec) -> bool:
    """Whether a new model replica may start before an old replica stops."""
    return _surge_percent(spec) > 0


def runtime_config(spec: Spec) -> Json:
    """`args` of the application. A change restarts the replicas."""
    source = spec.source()
    model = {
        "uri": source.uri,
        "revision": source.revision,
        "variant": source.variant,
        "dtype": source.dtype,
        "quantization": source.quantization,
        "scheduler": source.scheduler,
    }
    return {
        "model": _present(model),
        "loras": [lora.model_dump(exclude_none=True) for lora in source.loras],
        "optimizations": spec.optimizations.model_dump(),
        "warmup": [shape.model_dump() for shape in spec.warmup.shapes],
    }


def live_config(spec: Spec) -> Json:
    """`user_config` of both deployments. Running replicas apply a change without a restart."""
    limits = spec.limits.model_dump(exclude={"max_queued_requests"})
    return {
        "limits": limits,
        "batching": spec.batching.model_dump(),
        "defaults": spec.request_defaults().model_dump(exclude_none=True),
        "provenance": spec.provenance.model_dump(),
        "result_cache": spec.result_cache.model_dump(),
        "scale_to_zero": spec.replicas.min == 0,
    }


def _ingress(spec: Spec) -> Json:
    actor: Json = {"num_cpus": 0}
    if spec.replicas.min == 0:
        # At zero replicas there are no workers. So the ingress, which holds a waking request, must run on the head.
        actor["resources"] = {naming.HEAD_RESOURCE: 0.001}
    elif spec.head.store() is not None:
        # Every request passes the ingress. On the head it would be lost with the head, although the workers continue to serve.
        actor["label_selector"] = {naming.RAY_GROUP_LABEL: f"!{naming.HEAD_GROUP}"}
    return {
        "name": naming.INGRESS_DEPLOYMENT,
        "num_replicas": 1,
        "max_ongoing_requests": _INGRESS_ONGOING_REQUESTS,
        # The ingress needs no resources, so a new one can always start first. The old one keeps its waiting requests.
        "max_surge_percent": 100,
        "graceful_shutdown_timeout_s": grace_seconds(spec) + spec.limits.cold_start_timeout_seconds,
        "ray_actor_options": actor,
        "user_config": live_config(spec),
    }


def _model(spec: Spec, surge_percent: int) -> Json:
    scaling = spec.autoscaling
    return {
        "name": naming.MODEL_DEPLOYMENT,
        "max_ongoing_requests": max(2 * spec.batching.max_batch_size, spec.target_ongoing_requests()),
        "max_queued_requests": spec.limits.max_queued_requests,
        "max_surge_percent": surge_percent,
        "graceful_shutdown_timeout_s": grace_seconds(spec),
        "autoscaling_config": {
            "min_replicas": spec.replicas.min,
            "max_replicas": spec.replicas.max,
            "target_ongoing_requests": spec.target_ongoing_requests(),
            "upscale_delay_s": scaling.upscale_delay_seconds,
            "downscale_delay_s": scaling.downscale_delay_seconds,
        },
        "ray_actor_options": {"num_cpus": 1, "num_gpus": _gpu_share(spec)},
        "user_config": live_config(spec),
    }


def _gpu_share(spec: Spec) -> float:
    """GPUs of one replica. A share is rounded down to 1e-4, Ray's precision, so that all shares of a GPU fit on it."""
    if spec.replicas_per_gpu == 1:
        return spec.gpus_per_replica
    return int(10000 / spec.replicas_per_gpu) / 10000


def grace_seconds(spec: Spec) -> int:
    """Seconds that a stopping replica has to finish: its longest request, and the transfer of the result."""
    return max(_LEAST_GRACE_SECONDS, spec.limits.timeout_seconds + _HANDOVER_SECONDS)


def _surge_percent(spec: Spec) -> int:
    """New replicas that may start before old ones stop, in percent: the capacity of the workers beyond replicas.max.

    Further replicas would wait for capacity forever, and the change would never complete.
    """
    return min(100, 100 * (most_replicas(spec) - spec.replicas.max) // spec.replicas.max)


def _present(values: Json) -> Json:
    return {key: value for key, value in values.items() if value is not None}
