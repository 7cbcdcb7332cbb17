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
from sd_operator.json_types import Json
from sd_operator.ray.replica_starts import StartReport
from sd_operator.strict_json import clipped, count, is_within, items, mapping, refuse, text

NOT_STARTED = "NOT_STARTED"
FAILED = frozenset({"DEPLOY_FAILED", "UNHEALTHY"})
"""Statuses of an application that does not come up, or has stopped working, by itself."""

_RUNNING = "RUNNING"
_PLACED = frozenset({"STARTING", _RUNNING})
_OURS = f"applications.{naming.APPLICATION}"
# What is kept of an answer is bounded: a spec has a thousand replicas at most, and as many again while they are replaced.
_MOST_DEPLOYMENTS = 16
_MOST_REPLICAS = 5000
_MOST_NAME = 128
_MOST_MESSAGE = 32 * 1024
_MOST_VALUES = 10_000
_MOST_CHARACTERS = 512 * 1024


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
        failure: why there was no answer to the latest question; empty where there was one.
        due: something has happened since, for which Ray was asked again: its answer is to come in a moment.
    """

    state: ServeState
    at: datetime
    fresh: bool = True
    starts: Mapping[str, StartReport] = field(default_factory=dict)
    failure: str = ""
    due: bool = False


@dataclass(frozen=True)
class Silence:
    """A head of which nothing is known, or nothing any more.

    Attributes:
        since: since when this process polls it.
        failure: why there was no answer; empty while the answer to a poll is awaited.
        from_start: it is polled since this process started: what Ray reported before that may be on record.
    """

    since: datetime
    failure: str = ""
    from_start: bool = False


def read(answer: Any) -> ServeState:
    """The state of our application in an answer to GET /api/serve/applications/.

    Raises:
        RayUnavailable: the answer is not of the shape that Ray gives it, or holds more than is kept of one.
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
    """The state, with the deployments seen before where they are missing because the application is built anew.

    Their replicas serve on until the new application is there; what they were configured with is dropped.
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
    """A replica by its id; None before it has a pod."""
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
    """Raise RayUnavailable where a configuration is larger than any that a spec can become; it would be kept in memory."""
    if not is_within(kept, _MOST_VALUES, _MOST_CHARACTERS):
        refuse("in Ray's answer the configuration is larger than any that was applied")
