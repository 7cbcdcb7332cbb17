# SPDX-License-Identifier: Apache-2.0
"""Graceful termination of pods, so that a node drain, an autoscaler or an upgrade loses no request.

When a worker gets SIGTERM, Ray drains its node: Serve starts replacement replicas elsewhere, sends the old replicas no
new requests and lets them finish. Then the node ends by itself. An idle node ends long before its grace period is over.
The head waits for draining workers, because a drain needs the head.
"""

from sd_operator.api import Spec
from sd_operator.builders.serve_config import grace_seconds as replica_grace_seconds
from sd_operator.json_types import Json

# The maximum time for which `ray start --block` drains its node; 0: no drain.
# https://docs.ray.io/en/latest/train/user-guides/fault-tolerance.html
_DRAIN_TIMEOUT = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
# A replica continues to serve for this time while its replacement loads. Serve's proxy always stays for this time.
_REPLACEMENT_SECONDS = 30
_SHUTDOWN_SECONDS = 20  # for Ray's own processes, after the drain
_AWAIT_WORKERS = "sd_runtime.await_workers"


def grace_seconds(spec: Spec) -> int:
    """`terminationGracePeriodSeconds`: the longest request, plus the time for the replacement and the shutdown."""
    return _drain_seconds(spec) + _SHUTDOWN_SECONDS


def worker_variables(spec: Spec) -> list[Json]:
    """Environment variables of a worker."""
    return [{"name": _DRAIN_TIMEOUT, "value": str(_drain_seconds(spec))}]


def head_variables() -> list[Json]:
    """Environment variables of the head: no drain. Serve's controller never leaves the head, so a drain would time out."""
    return [{"name": _DRAIN_TIMEOUT, "value": "0"}]


def head_lifecycle(spec: Spec) -> Json:
    """`lifecycle` of the head's container: it waits until the workers have ended."""
    command = ["python", "-m", _AWAIT_WORKERS, str(_drain_seconds(spec))]
    return {"preStop": {"exec": {"command": command}}}


def _drain_seconds(spec: Spec) -> int:
    return replica_grace_seconds(spec) + _REPLACEMENT_SECONDS
