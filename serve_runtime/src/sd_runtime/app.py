# SPDX-License-Identifier: Apache-2.0
"""`build_app`: the application builder that the Serve config names as its import path."""

from typing import Any

from ray import serve
from ray.serve import Application

from sd_runtime.config import RuntimeConfig
from sd_runtime.serving.ingress import Ingress
from sd_runtime.serving.replica import ModelReplica

# Defaults for options that the Serve config does not set. Ray's own default of 5 ongoing requests never fills a batch.
_INGRESS: dict[str, Any] = {"max_ongoing_requests": 1000, "ray_actor_options": {"num_cpus": 0}}
_MODEL: dict[str, Any] = {
    "max_ongoing_requests": 16,
    "max_queued_requests": 64,
    "ray_actor_options": {"num_cpus": 1},
}


def build_app(args: dict[str, Any]) -> Application:
    """Build the Serve application: the deployment `ingress`, which calls the deployment `model`.

    Args:
        args: the fields of a RuntimeConfig. Limits, batching and defaults arrive as `user_config` of both deployments.

    Raises:
        ValidationError: `args` is not a valid RuntimeConfig. Serve reports it as DEPLOY_FAILED.
    """
    config = RuntimeConfig.model_validate(args)
    model = serve.deployment(name="model", **_MODEL)(ModelReplica)
    ingress = serve.deployment(name="ingress", **_INGRESS)(Ingress)
    return ingress.bind(model.bind(config), config)
