# SPDX-License-Identifier: Apache-2.0
"""`build_app`: the import path of the Serve config."""

from typing import Any

from ray import serve
from ray.serve import Application

from sd_runtime.config import RuntimeConfig
from sd_runtime.serving.ingress import Ingress
from sd_runtime.serving.replica import ModelReplica

# What holds where the Serve config names no value of its own; Ray's 5 requests at once never fill a batch.
_INGRESS: dict[str, Any] = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0}}
_MODEL: dict[str, Any] = {
    "max_ongoing_requests": 16,
    "max_queued_requests": 64,
    "ray_actor_options": {"num_cpus": 1},
}


def build_app(args: dict[str, Any]) -> Application:
    """The application: `ingress` in front of `model`.

    Args:
        args: a RuntimeConfig; limits, batching and defaults come as `user_config` of both deployments.

    Raises:
        ValidationError: `args` is no RuntimeConfig; Serve reports it as DEPLOY_FAILED.
    """
    config = RuntimeConfig.model_validate(args)
    model = serve.deployment(name="model", **_MODEL)(ModelReplica)
    ingress = serve.deployment(name="ingress", **_INGRESS)(Ingress)
    return ingress.bind(model.bind(config), config)
