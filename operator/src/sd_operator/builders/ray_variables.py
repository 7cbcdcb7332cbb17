# SPDX-License-Identifier: Apache-2.0
"""Environment variables of Ray Serve, for options that its config does not have. They are equal on every node."""

from collections.abc import Mapping

from sd_operator import naming
from sd_operator.api import Spec

# Each request passes from the ingress to a model replica. By default, Ray runs user code and routers in separate event
# loops, so that user code cannot block them. The runtime computes in its own threads and never blocks, so one loop
# suffices. By default, Ray passes requests through its object store. With gRPC they are sent directly, and every replica
# runs a gRPC server anyway.
_SERVE = {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Without this callback, the proxies would answer with a plain 500 when the ingress is lost.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": naming.PROXY_IMPORT_PATH,
}


def ray_variables(spec: Spec) -> Mapping[str, str]:
    """Variables of a Ray node by name, without secret ones. Variables of `spec.env` take precedence."""
    return _SERVE | spec.plain_env()
