# SPDX-License-Identifier: Apache-2.0
"""Builds the Secret with Ray's token. It is created once, never changed, and deleted with the resource.

By default KubeRay creates a new token for each RayCluster, so every upgrade would change the token. The caller generates
the token, so that this module stays pure. `render` prints the Secret without data.
"""

import base64
from collections.abc import Mapping
from typing import Any

from sd_operator import naming
from sd_operator.api import Resource
from sd_operator.builders.metadata import owned_metadata


def token_secret(resource: Resource, token: str | None) -> dict[str, Any]:
    """The Secret. Without a token it has no data."""
    secret: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": owned_metadata(resource, naming.token_secret(resource.name)),
        "type": "Opaque",
    }
    if token is not None:
        secret["stringData"] = {naming.TOKEN_KEY: token}
    return secret


def token_of(secret: Mapping[str, Any] | None) -> str:
    """The token in a live Secret; empty without a Secret or token."""
    data = (secret or {}).get("data") or {}
    return base64.b64decode(data.get(naming.TOKEN_KEY, "")).decode()
