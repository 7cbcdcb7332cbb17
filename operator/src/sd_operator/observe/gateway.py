# SPDX-License-Identifier: Apache-2.0
"""Where a Gateway takes requests (pure).

Its fields: https://gateway-api.sigs.k8s.io/reference/spec/#gateway. KubeRay makes it with one HTTP listener.
"""

from sd_operator.json_types import Json

_HTTP_PORT = 80


def url(live: Json) -> str:
    """Address of the first listener; empty until the controller of its class has given it one."""
    addresses = (live.get("status") or {}).get("addresses") or []
    listeners = live["spec"].get("listeners") or []
    if not addresses or not listeners:
        return ""
    host, port = addresses[0]["value"], listeners[0]["port"]
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}" if port == _HTTP_PORT else f"http://{host}:{port}"
