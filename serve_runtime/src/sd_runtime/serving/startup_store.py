# SPDX-License-Identifier: Apache-2.0
"""Where replicas tell of their start, for the ingress to read: the key-value store of Ray's head.

A replica answers no call before its start is over, and a call of the model, once it runs, counts as a reason to keep
a replica. A note on the head does neither, and outlives an ingress that is replaced.
"""

import json
import logging
import time
from dataclasses import asdict

from ray import serve
from ray.exceptions import RaySystemError
from ray.experimental import internal_kv
from ray.serve.exceptions import RayServeException

from sd_runtime.startup import StartReport

logger = logging.getLogger(__name__)

_NAMESPACE = "sdservice-starts"
_KEPT_SECONDS = 3600.0


def tell(report: StartReport) -> None:
    """Write down how far the start of this replica is; nothing comes of it outside Ray, or where the head does not answer."""
    if not internal_kv._internal_kv_initialized():  # noqa: SLF001 - Ray has no other store; Serve itself keeps its state here
        return
    try:
        replica = serve.get_replica_context().replica_id.unique_id
        _put(replica, report)
    except (RayServeException, RaySystemError, RuntimeError, ConnectionError) as error:
        logger.warning("the start of this replica could not be reported to Ray's head: %s", error)


def told() -> dict[str, StartReport]:
    """The starts of the last hour and of replicas that told since, by Serve's id of the replica; blocks.

    Raises:
        RaySystemError: the head does not answer.
    """
    found = {}
    for key in internal_kv._internal_kv_list("", namespace=_NAMESPACE):  # noqa: SLF001 - as above
        text = internal_kv._internal_kv_get(key, namespace=_NAMESPACE)  # noqa: SLF001 - as above
        if text is not None:
            note = json.loads(text)
            found[key.decode()] = StartReport(**note | {"warnings": tuple(note["warnings"])})
    return found


def _put(replica: str, report: StartReport) -> None:
    internal_kv._internal_kv_put(replica, json.dumps(asdict(report)), namespace=_NAMESPACE)  # noqa: SLF001 - as above
    if report.seconds:
        return
    old = time.time() - _KEPT_SECONDS
    for other, before in told().items():
        if before.since < old:
            internal_kv._internal_kv_del(other, namespace=_NAMESPACE)  # noqa: SLF001 - as above
