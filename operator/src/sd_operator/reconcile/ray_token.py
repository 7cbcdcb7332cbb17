# SPDX-License-Identifier: Apache-2.0
"""The Secret with the token that Ray's API wants: created once, never written again."""

from collections.abc import Callable

from sd_operator import naming
from sd_operator.api import Resource
from sd_operator.builders.token_secret import token_of, token_secret
from sd_operator.errors import ClusterUnavailable
from sd_operator.json_types import Json
from sd_operator.kube import SECRET, Cluster
from sd_operator.kube.ownership import belongs_to, conflict


async def ensure_token(
    cluster: Cluster, resource: Resource, live: Json | None, draw: Callable[[], str]
) -> str:
    """Create the Secret where there is none, and return the stored token: another writer may have been faster.

    Args:
        cluster: the API server.
        resource: the service.
        live: the Secret as it was read.
        draw: makes a new token.

    Raises:
        NameConflict: the Secret belongs to somebody else.
        ClusterUnavailable: the Secret was created and deleted meanwhile.
    """
    name = naming.token_secret(resource.name)
    if live is None:
        token = draw()
        if await cluster.create(token_secret(resource, token), naming.FIELD_MANAGER) is not None:
            return token
        live = await cluster.get(SECRET, resource.namespace, name)
    if live is None:
        raise ClusterUnavailable(f"Secret {name} was created and deleted meanwhile")
    if not belongs_to(live, resource.uid):
        raise conflict(live, SECRET.name, resource.name)
    return token_of(live)
