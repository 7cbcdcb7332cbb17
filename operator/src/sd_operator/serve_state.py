# SPDX-License-Identifier: Apache-2.0
"""Serve's answer about its applications, read into the few facts that status is computed from (pure).

The answer is `ServeInstanceDetails` of https://docs.ray.io/en/latest/serve/api/index.html#serve-rest-api. Two traps:
while an application is built, its deployments are missing from the answer although their replicas serve on; and
`deployed_app_config` holds misspelt keys of nested options that `deployment_config`, which takes effect, does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sd_operator import naming
from sd_operator.start_report import StartReport

Json = dict[str, Any]

NOT_STARTED = "NOT_STARTED"
FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})
"""Statuses of an application that does not come up, or has stopped working, by itself."""


@dataclass(frozen=True)
class ReplicaState:
    """One replica that has a place: the IP address of its pod, and whether it takes requests yet."""

    address: str
    running: bool


@dataclass(frozen=True)
class DeploymentState:
    """One deployment.

    Attributes:
        status: UPDATING, HEALTHY, UNHEALTHY, DEPLOY_FAILED, UPSCALING or DOWNSCALING.
        target: replicas that Serve wants now.
        running: replicas that take requests.
        config: the options in effect, Serve's defaults included.
        replicas: those that start or run in a pod, by Serve's id.
    """

    status: str
    message: str
    target: int
    running: int
    config: Json = field(default_factory=dict)
    replicas: Mapping[str, ReplicaState] = field(default_factory=dict)


@dataclass(frozen=True)
class ServeState:
    """Our application.

    Attributes:
        status: NOT_STARTED, DEPLOYING, DEPLOY_FAILED, RUNNING, UNHEALTHY or DELETING.
        deployments: by name; empty while the application is built.
        config: the application's config as Serve took it, None before it has one.
        server: `proxy_location` and `http_options` in effect.
    """

    status: str
    message: str = ""
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)
    config: Json | None = None
    server: Json = field(default_factory=dict)

    def words(self) -> str:
        """Everything Ray says about it, the application's own message first: it repeats the deployments'."""
        told = [each.message for each in self.deployments.values()]
        return "\n".join(filter(None, [self.message, *told]))

    def running(self, deployment: str) -> int:
        """Replicas of a deployment that take requests."""
        found = self.deployments.get(deployment)
        return found.running if found else 0

    @property
    def models(self) -> Mapping[str, ReplicaState]:
        """Replicas of the model that start or run in a pod, by Serve's id."""
        found = self.deployments.get(naming.MODEL_DEPLOYMENT)
        return found.replicas if found else {}


@dataclass(frozen=True)
class Reading:
    """What was read, and when.

    Attributes:
        at: when Ray answered.
        fresh: Ray has answered the latest question; else this is remembered.
        starts: what replicas of the model told of their start, by Serve's id.
    """

    state: ServeState
    at: datetime
    fresh: bool = True
    starts: Mapping[str, StartReport] = field(default_factory=dict)


def read(answer: Mapping[str, Any]) -> ServeState:
    """The state of our application in an answer to GET /api/serve/applications/."""
    found = (answer.get("applications") or {}).get(naming.APPLICATION)
    server = {key: answer[key] for key in ("proxy_location", "http_options") if answer.get(key)}
    if found is None:
        return ServeState(NOT_STARTED, server=server)
    return ServeState(
        status=found.get("status", NOT_STARTED),
        message=found.get("message", ""),
        deployments={name: _deployment(each) for name, each in (found.get("deployments") or {}).items()},
        config=found.get("deployed_app_config"),
        server=server,
    )


def carry_over(state: ServeState, before: ServeState | None) -> ServeState:
    """The state, with the deployments seen before where they are missing because the application is built anew.

    Their replicas serve on until the new application is there; what they were configured with is dropped.
    """
    if before is None or state.deployments or state.status not in {"DEPLOYING", "DEPLOY_FAILED"}:
        return state
    kept = {name: replace(each, message="", config={}) for name, each in before.deployments.items()}
    return replace(state, deployments=kept)


def _deployment(found: Mapping[str, Any]) -> DeploymentState:
    placed = [each for each in found.get("replicas") or [] if each.get("state") in {"STARTING", "RUNNING"}]
    running = [each for each in placed if each["state"] == "RUNNING"]
    return DeploymentState(
        status=found.get("status", ""),
        message=found.get("message", ""),
        target=found.get("target_num_replicas", 0),
        running=len(running),
        config=found.get("deployment_config") or {},
        replicas={
            each["replica_id"]: ReplicaState(each["node_ip"], running=each in running)
            for each in placed
            if each.get("node_ip") and each.get("replica_id")
        },
    )
