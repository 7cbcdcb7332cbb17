# SPDX-License-Identifier: Apache-2.0
"""How a pod ends, so that no picture is lost with it: deleted by a node's drain, an autoscaler or an upgrade.

A worker that gets SIGTERM has Ray drain its node: Serve starts its replicas elsewhere, gives them no more requests
and lets them finish; then the node ends by itself, long before its time is over where nothing was being drawn. The
head only waits for workers that drain: without it they could not end well.
"""

from sd_operator.api import Spec
from sd_operator.builders.serve_config import grace_seconds as replica_grace_seconds
from sd_operator.json_types import Json

# `ray start --block` drains its node for so long at most; 0: not at all.
# https://docs.ray.io/en/latest/train/user-guides/fault-tolerance.html
_DRAIN_TIMEOUT = "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
# So long a replica serves on while its replacement loads. Serve's proxy stays this long in any case.
_REPLACEMENT_SECONDS = 30
_SHUTDOWN_SECONDS = 20  # for Ray's own processes, after the drain
_AWAIT_WORKERS = "sd_runtime.await_workers"


def grace_seconds(spec: Spec) -> int:
    """`terminationGracePeriodSeconds`: the longest request, and what comes before and after it."""
    return _drain_seconds(spec) + _SHUTDOWN_SECONDS


def worker_variables(spec: Spec) -> list[Json]:
    """Environment of a worker."""
    return [{"name": _DRAIN_TIMEOUT, "value": str(_drain_seconds(spec))}]


def head_variables() -> list[Json]:
    """Environment of the head: Serve's controller never leaves it, so its drain would only end with its time."""
    return [{"name": _DRAIN_TIMEOUT, "value": "0"}]


def head_lifecycle(spec: Spec) -> Json:
    """`lifecycle` of the head's container: it goes last."""
    command = ["python", "-m", _AWAIT_WORKERS, str(_drain_seconds(spec))]
    return {"preStop": {"exec": {"command": command}}}


def _drain_seconds(spec: Spec) -> int:
    return replica_grace_seconds(spec) + _REPLACEMENT_SECONDS
