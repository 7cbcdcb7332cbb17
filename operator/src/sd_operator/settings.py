# SPDX-License-Identifier: Apache-2.0
"""Settings of the operator, from environment variables `SDSERVICE_*`; read once, passed as an argument."""

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from sd_operator import __version__


class Settings(BaseSettings):
    """What a platform team decides once per installation."""

    model_config = SettingsConfigDict(env_prefix="SDSERVICE_", frozen=True)

    runtime_repository: str = Field(
        default="ghcr.io/sdservice/worker", description="Runtime image of services that name none."
    )
    runtime_tag: str = Field(
        default=__version__, description="Tag of that image: the operator's own release."
    )
    watch_namespaces: tuple[str, ...] = Field(default=(), description="Namespaces to serve; empty: all.")
    workers: int = Field(default=8, ge=1, le=64, description="Services reconciled at the same time.")
    resync_seconds: float = Field(
        default=300, ge=1, le=3600, description="Seconds between two full comparisons with the cluster."
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
        description="Address of the dashboard of a RayCluster; empty: through the API server's service proxy.",
    )
    probe_port: int = Field(default=8080, ge=0, le=65535, description="Port of /healthz; 0 turns it off.")
    log_format: str = Field(default="plain", pattern="^(plain|json)$", description="plain or json.")
