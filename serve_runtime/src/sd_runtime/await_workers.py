# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_runtime.await_workers SECONDS`: the preStop command of the pod of Ray's head.

When a whole cluster is deleted, its workers first finish their requests. They need the head for that, because Serve's
controller and Ray's GCS run there. So the head waits until no worker is draining. If only the head is deleted, no
worker drains, and the head does not wait.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable

from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient  # type: ignore[attr-defined]  # its stub leaves the class out
from ray.core.generated.gcs_pb2 import GcsNodeInfo
from ray.exceptions import GetTimeoutError, RpcError

_POLL_SECONDS = 1.0
_NOTICE_SECONDS = 10.0  # the pods of a cluster are deleted one after another
_RPC_SECONDS = 5.0


def await_none(
    draining: Callable[[], Iterable[str]],
    seconds: float,
    *,
    notice: float = _NOTICE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until no worker is draining, for `seconds` at most. Return whether no worker was draining at the end.

    A worker may take `notice` seconds to report that it drains, so the wait is at least that long.
    """
    began = clock()
    while clock() - began < seconds:
        if not list(draining()) and clock() - began >= notice:
            return True
        sleep(_POLL_SECONDS)
    return False


def draining_workers(gcs: GcsClient) -> set[str]:
    """Ids of the live workers that are draining, from Ray's GCS. If the GCS does not answer, the set is {"unknown"}."""
    try:
        nodes = gcs.get_all_node_info(timeout=_RPC_SECONDS)
        draining = gcs.get_draining_nodes(timeout=_RPC_SECONDS)
    except (RpcError, GetTimeoutError):
        return {"unknown"}
    alive = {
        node_id.hex()
        for node_id, node in nodes.items()
        if node.state == GcsNodeInfo.ALIVE and not node.is_head_node
    }
    return alive & set(draining)


def main() -> None:
    """Wait for at most the seconds of the command line."""
    gcs = GcsClient(address=canonicalize_bootstrap_address_or_die(os.environ.get("RAY_ADDRESS")))
    await_none(lambda: draining_workers(gcs), float(sys.argv[1]))


if __name__ == "__main__":
    main()
