# SPDX-License-Identifier: Apache-2.0
"""Start reports of replicas in the key-value store of Ray's head, for the ingress to read.

A replica answers no calls before its start has finished, and later Serve counts each call as load, which keeps a
replica running. A report on the head avoids both problems, and it survives a replacement of the ingress.
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


def publish(report: StartReport) -> None:
    """Store the report of this replica's start. Outside Ray this does nothing; a failure is logged and not raised."""
    if not internal_kv._internal_kv_initialized():  # noqa: SLF001 - Ray has no other store; Serve itself keeps its state here
        return
    try:
        replica = serve.get_replica_context().replica_id.unique_id
        _put(replica, report)
    except (RayServeException, RaySystemError, RuntimeError, ConnectionError) as error:
        logger.warning("the start of this replica could not be reported to Ray's head: %s", error)


def published() -> dict[str, StartReport]:
    """All stored reports, by Ray Serve replica id. The call blocks.

    The store has the starts of the last hour; older reports are deleted when the next replica starts.

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
    for other, before in published().items():
        if before.since < old:
            internal_kv._internal_kv_del(other, namespace=_NAMESPACE)  # noqa: SLF001 - as above
