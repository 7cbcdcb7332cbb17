# SPDX-License-Identifier: Apache-2.0
"""`python -m sd_runtime.await_workers SECONDS`: what the pod of Ray's head does before it goes.

Where a whole cluster is deleted, its workers end what they have begun, and need the head for that: Serve's controller
and Ray's GCS. So the head goes last. One that is deleted alone waits for nobody: nobody drains.
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
_NOTICE_SECONDS = 10.0  # pods of a cluster are deleted one by one
_RPC_SECONDS = 5.0


def await_none(
    draining: Callable[[], Iterable[str]],
    seconds: float,
    *,
    notice: float = _NOTICE_SECONDS,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Wait until none is draining, so many seconds at most; tell whether that came true.

    A worker may take `notice` seconds to say that it drains; these are waited in any case.
    """
    began = clock()
    while clock() - began < seconds:
        if not list(draining()) and clock() - began >= notice:
            return True
        sleep(_POLL_SECONDS)
    return False


def draining_workers(gcs: GcsClient) -> set[str]:
    """Ids of the workers that are alive and drain, by Ray's GCS; one that is not known, if the GCS does not say."""
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
    """Wait as long as the command line says, at most."""
    gcs = GcsClient(address=canonicalize_bootstrap_address_or_die(os.environ.get("RAY_ADDRESS")))
    await_none(lambda: draining_workers(gcs), float(sys.argv[1]))


if __name__ == "__main__":
    main()
