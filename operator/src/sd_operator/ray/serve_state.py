# SPDX-License-Identifier: Apache-2.0
"""Reads Serve's answer about its applications into the few facts from which the status is computed (pure).

The answer is `ServeInstanceDetails` of https://docs.ray.io/en/latest/serve/api/index.html#serve-rest-api. It has two traps.
While an application is built, its deployments are missing from the answer although their replicas continue to serve. And
`deployed_app_config` contains misspelt keys of nested options, which `deployment_config` (the effective config) does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from sd_operator import naming
from sd_operator.json_types import Json
from sd_operator.ray.replica_starts import StartReport
from sd_operator.strict_json import clipped, count, is_within, items, mapping, refuse, text

NOT_STARTED = "NOT_STARTED"
FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})
"""Statuses of an application that does not start or has stopped working."""

_RUNNING = "RUNNING"
_PLACED = frozenset({"STARTING", _RUNNING})
_OURS = f"applications.{naming.APPLICATION}"
# Kept answers are bounded: a spec has a thousand replicas at most, and twice as many while they are replaced.
_MOST_DEPLOYMENTS = 16
_MOST_REPLICAS = 5000
_MOST_NAME = 128
_MOST_MESSAGE = 32 * 1024
_MOST_VALUES = 10_000
_MOST_CHARACTERS = 512 * 1024


@dataclass(frozen=True)
class ReplicaState:
    """One replica in a pod: the IP address of the pod, and whether the replica accepts requests."""

    address: str
    running: bool


@dataclass(frozen=True)
class DeploymentState:
    """One deployment.

    Attributes:
        status: UPDATING, HEALTHY, UNHEALTHY, DEPLOY_FAILED, UPSCALING or DOWNSCALING.
        target: Serve's current target number of replicas.
        running: number of replicas that accept requests.
        config: the effective options, including Serve's defaults.
        replicas: the replicas that start or run in a pod, by Serve's id.
    """

    status: str
    message: str
    target: int
    running: int
    config: Json = field(default_factory=dict)
    replicas: Mapping[str, ReplicaState] = field(default_factory=dict)


@dataclass(frozen=True)
class ServeState:
    """The service's application in Serve.

    Attributes:
        status: NOT_STARTED, DEPLOYING, DEPLOY_FAILED, RUNNING, UNHEALTHY or DELETING.
        deployments: the deployments by name; empty while the application is built.
        config: the application's config that Serve has accepted; None before that.
        server: the effective `proxy_location` and `http_options`.
    """

    status: str
    message: str = ""
    deployments: Mapping[str, DeploymentState] = field(default_factory=dict)
    config: Json | None = None
    server: Json = field(default_factory=dict)

    def words(self) -> str:
        """All messages of Ray about the application; its own comes first, because it repeats those of deployments."""
        messages = [each.message for each in self.deployments.values()]
        return "\n".join(filter(None, [self.message, *messages]))

    def running(self, deployment: str) -> int:
        """Number of replicas of a deployment that accept requests."""
        found = self.deployments.get(deployment)
        return found.running if found else 0

    @property
    def models(self) -> Mapping[str, ReplicaState]:
        """Replicas of the model that start or run in a pod, by Serve's id."""
        found = self.deployments.get(naming.MODEL_DEPLOYMENT)
        return found.replicas if found else {}


@dataclass(frozen=True)
class Reading:
    """An answer of Ray, and its time.

    Attributes:
        at: when Ray answered.
        fresh: whether Ray has answered the latest poll; otherwise this answer is remembered.
        starts: start reports of the model's replicas, by Serve's id.
        failure: why there was no answer to the latest poll; empty if there was one.
        due: whether a new poll is running after a change, so that its answer will arrive in a moment.
    """

    state: ServeState
    at: datetime
    fresh: bool = True
    starts: Mapping[str, StartReport] = field(default_factory=dict)
    failure: str = ""
    due: bool = False


@dataclass(frozen=True)
class Silence:
    """A head without a valid answer.

    Attributes:
        since: when this process started to poll it.
        failure: why there was no answer; empty while the answer to a poll is pending.
        from_start: whether it is polled since this process started, so that the status may have recorded earlier answers.
    """

    since: datetime
    failure: str = ""
    from_start: bool = False


def read(answer: Any) -> ServeState:
    """The state of the service's application in an answer to GET /api/serve/applications/.

    Raises:
        RayUnavailable: the answer does not have the form of Ray's answers, or is too large to be kept.
    """
    whole = mapping(answer, "the answer")
    found = mapping(whole.get("applications"), "applications").get(naming.APPLICATION)
    server = {key: whole[key] for key in ("proxy_location", "http_options") if whole.get(key)}
    _check_size(server)
    if found is None:
        return ServeState(NOT_STARTED, server=server)
    application = mapping(found, _OURS)
    deployments = mapping(application.get("deployments"), f"{_OURS}.deployments", _MOST_DEPLOYMENTS)
    state = ServeState(
        status=text(application.get("status"), f"{_OURS}.status", _MOST_NAME) or NOT_STARTED,
        message=text(application.get("message"), f"{_OURS}.message", _MOST_MESSAGE),
        deployments={
            clipped(name, _MOST_NAME): _deployment(name, each) for name, each in deployments.items()
        },
        config=_config(application.get("deployed_app_config"), f"{_OURS}.deployed_app_config"),
        server=server,
    )
    _check_size([state.config, *(each.config for each in state.deployments.values())])
    return state


def carry_over(state: ServeState, before: ServeState | None) -> ServeState:
    """The state with the former deployments, if they are missing because the application is being built again.

    Their replicas continue to serve until the new application is ready. Their former config is dropped.
    """
    if before is None or state.deployments or state.status not in {"DEPLOYING", "DEPLOY_FAILED"}:
        return state
    kept = {name: replace(each, message="", config={}) for name, each in before.deployments.items()}
    return replace(state, deployments=kept)


def _deployment(name: str, answer: Any) -> DeploymentState:
    where = f"{_OURS}.deployments.{clipped(name, _MOST_NAME)}"
    found = mapping(answer, where)
    listed = items(found.get("replicas"), f"{where}.replicas", _MOST_REPLICAS)
    placed = [
        each for each in (mapping(one, f"{where}.replicas") for one in listed) if _state(each) in _PLACED
    ]
    return DeploymentState(
        status=text(found.get("status"), f"{where}.status", _MOST_NAME),
        message=text(found.get("message"), f"{where}.message", _MOST_MESSAGE),
        target=count(found.get("target_num_replicas"), f"{where}.target_num_replicas"),
        running=sum(_state(each) == _RUNNING for each in placed),
        config=_config(found.get("deployment_config"), f"{where}.deployment_config") or {},
        replicas=dict(filter(None, (_replica(each, f"{where}.replicas") for each in placed))),
    )


def _replica(found: Mapping[str, Any], where: str) -> tuple[str, ReplicaState] | None:
    """The id and the state of a replica; None before it has a pod."""
    name = text(found.get("replica_id"), f"{where}.replica_id", _MOST_NAME)
    address = text(found.get("node_ip"), f"{where}.node_ip", _MOST_NAME)
    if not (name and address):
        return None
    return name, ReplicaState(address, running=_state(found) == _RUNNING)


def _state(replica: Mapping[str, Any]) -> str:
    return text(replica.get("state"), "the state of a replica", _MOST_NAME)


def _config(value: Any, where: str) -> Json | None:
    return None if value is None else dict(mapping(value, where))


def _check_size(kept: Any) -> None:
    """Raise RayUnavailable if a configuration, which is kept in memory, is larger than any spec can cause."""
    if not is_within(kept, _MOST_VALUES, _MOST_CHARACTERS):
        refuse("in Ray's answer the configuration is larger than any that the operator applies")
