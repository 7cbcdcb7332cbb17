# SPDX-License-Identifier: Apache-2.0
"""The `ingress` deployment: it serves HTTP and calls the model replicas. It generates no images itself."""

from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle

from sd_runtime.api import application
from sd_runtime.api.service import Service
from sd_runtime.config import LiveConfig, RuntimeConfig
from sd_runtime.observability import json_logs
from sd_runtime.observability.ingress_metrics import RayMetrics
from sd_runtime.observability.tracing import tracing
from sd_runtime.serving import whole_body
from sd_runtime.serving.serve_backend import ServeBackend


@serve.ingress()
class Ingress:
    """The HTTP API on Ray Serve. One replica is enough, since requests only wait here."""

    def __init__(self, model: DeploymentHandle, config: RuntimeConfig) -> None:
        json_logs.install()
        whole_body.install()
        self._backend = ServeBackend(model)
        self._service = Service(config, self._backend, metrics=RayMetrics(), tracing=tracing())

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Build the FastAPI application in this process. With `serve.ingress(app)` Serve would pickle it."""
        return application(self._service)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Apply a new LiveConfig without a restart."""
        live = LiveConfig.model_validate(user_config)
        self._backend.configure(live)
        self._service.configure(live)
