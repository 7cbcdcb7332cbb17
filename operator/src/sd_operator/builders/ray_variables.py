# SPDX-License-Identifier: Apache-2.0
"""What Ray Serve reads from its environment alone, not from its config; the same on every node."""

from collections.abc import Mapping

from sd_operator import naming
from sd_operator.api import Spec

# Each request crosses from the ingress to a model replica. Ray gives user code and routers an event loop each, so that
# user code cannot block them; ours computes on threads of its own and never does. And Ray passes what crosses through
# its object store unless told to send it by gRPC, whose server every replica runs anyway.
_SERVE = {
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Where the ingress is lost, the proxies would answer a bare 500.
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": naming.PROXY_IMPORT_PATH,
}


def ray_variables(spec: Spec) -> Mapping[str, str]:
    """Variables of a Ray node by name; those of `spec.env` win. Secret ones are not among them."""
    return _SERVE | spec.plain_env()
