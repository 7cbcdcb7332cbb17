# SPDX-License-Identifier: Apache-2.0
"""The address at which a Gateway accepts requests (pure).

Fields of a Gateway: https://gateway-api.sigs.k8s.io/reference/spec/#gateway. KubeRay creates it with one HTTP listener.
"""

from sd_operator.json_types import Json

_HTTP_PORT = 80


def url(live: Json) -> str:
    """URL of the first listener; empty until the controller of the Gateway's class has assigned an address."""
    addresses = (live.get("status") or {}).get("addresses") or []
    listeners = live["spec"].get("listeners") or []
    if not addresses or not listeners:
        return ""
    host, port = addresses[0]["value"], listeners[0]["port"]
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}" if port == _HTTP_PORT else f"http://{host}:{port}"
