# SPDX-License-Identifier: Apache-2.0
"""A request in terms of Kubernetes authorization: verb, resource, subresource, name (pure)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

WRITES = frozenset({"create", "update", "patch", "delete"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_GROUPED = "apis"


@dataclass(frozen=True)
class ApiRequest:
    """One request.

    Attributes:
        verb: get, list, watch, create, update, patch or delete; get for paths without a resource, such as /version.
        resource: plural of the kind; empty for paths without a resource.
        subresource: a subresource such as status; empty for the object itself.
        name: name of the object. For a create, the name in its body.
        path: path and query, as the client sent them.
        authorization: the Authorization header.
        body: the body, as the client sent it.
    """

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    authorization: str = ""
    body: bytes = field(default=b"", repr=False)

    @property
    def is_write(self) -> bool:
        """Return whether the request changes an object."""
        return self.verb in WRITES

    @property
    def object(self) -> Any:
        """The body as JSON; None if the body is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    def __str__(self) -> str:
        """Return `patch rayservices/imagine`."""
        parts = (self.resource or self.path, self.name, self.subresource)
        return f"{self.verb} {'/'.join(filter(None, parts))}"


def read_request(
    method: str, path: str, query: Mapping[str, str], body: bytes, authorization: str
) -> ApiRequest:
    """Build the request from its HTTP parts.

    Args:
        method: HTTP method.
        path: path without the query.
        query: values of the query.
        body: the body, as the client sent it.
        authorization: the Authorization header.
    """
    text = path + ("?" + "&".join(f"{key}={value}" for key, value in query.items()) if query else "")
    group, parts = _place(path)
    namespace = ""
    if parts[:1] == ["namespaces"] and len(parts) > 2:  # noqa: PLR2004 - namespaces/NAME/resource
        namespace, parts = parts[1], parts[2:]
    resource, name, subresource = (*parts, "", "", "")[:3]
    verb = _VERBS.get(method, "get")
    if verb == "get" and resource and not name:
        verb = "watch" if query.get("watch") in {"true", "1"} else "list"
    if verb == "create" and not name:
        name = _name(body)
    return ApiRequest(verb, group, resource, subresource, namespace, name, text, authorization, body)


def _place(path: str) -> tuple[str, list[str]]:
    """Return the API group, and the path after the version."""
    parts = [part for part in path.split("/") if part]
    if parts[:1] == ["api"]:
        return "", parts[2:]
    if parts[:1] == [_GROUPED]:
        return (parts[1] if len(parts) > 1 else ""), parts[3:]
    return "", []


def _name(body: bytes) -> str:
    try:
        sent = json.loads(body)
    except ValueError:
        return ""
    metadata = sent.get("metadata") if isinstance(sent, dict) else None
    return str((metadata or {}).get("name", ""))
