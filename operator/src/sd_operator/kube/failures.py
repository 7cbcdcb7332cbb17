# SPDX-License-Identifier: Apache-2.0
"""Turns an error answer of the API server into an error: retry, a person must act, or KubeRay is missing."""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from sd_operator.errors import ClusterUnavailable, KubeRayMissing, KubeRayTooOld, Refused, SdServiceError
from sd_operator.kube.kinds import Kind

_GONE = 404
_CONFLICT = 409
_EXPIRED = 410
_TOO_MANY = 429
_UNAUTHORIZED = 401
_SERVER_ERROR = 500
_LONGEST_PAUSE = 300.0
_GOING = "custom resource definition is terminating"
_TOO_LARGE = "the spec is too large, make it shorter: "
_NEEDS_A_PERSON = {
    "request is too large": _TOO_LARGE,  # a message of etcd, from 1.5 MiB on
    "larger than max": _TOO_LARGE,  # a message of gRPC, from 2 MiB on
    "failed calling webhook": "a webhook does not answer: ",
}
"""Messages of HTTP 500 for which a quick retry is useless, and the hint for a person."""


def failure(kind: Kind, status: int, body: bytes, retry_after: str | None) -> SdServiceError:
    """The error for an answer that is none of 2xx."""
    message = _message(body) or f"HTTP {status}"
    if status == _GONE and kind.name in {"RayService", "RayCluster"} and not names_an_object(body):
        return KubeRayMissing(
            "the cluster has no kind RayService (ray.io/v1). Install KubeRay 1.7 or newer; the service then continues"
            " automatically"
        )
    if kind.name in {"RayService", "RayCluster"} and _GOING in message:
        return KubeRayMissing(
            "the kind RayService (ray.io/v1) is being deleted. Install KubeRay 1.7 or newer; the service then continues"
            " automatically"
        )
    field = _unknown_field(message)
    if kind.name == "RayService" and field:
        return KubeRayTooOld(
            f"KubeRay's RayService has no field {field}. Install KubeRay 1.7 or newer with its CustomResourceDefinitions,"
            " which Helm does not upgrade; the service then continues automatically"
        )
    hint = next((hint for words, hint in _NEEDS_A_PERSON.items() if words in message), "")
    is_passing = status in {_UNAUTHORIZED, _CONFLICT, _EXPIRED, _TOO_MANY} or status >= _SERVER_ERROR
    if is_passing and not hint:
        return ClusterUnavailable(f"{kind.name}: {message}", _seconds(retry_after))
    return Refused(f"{hint}the API server refuses the {kind.name}: {message}")


def names_an_object(body: bytes) -> bool:
    """Whether a 404 means that the object is missing; otherwise the kind is missing."""
    return bool(_status(body).get("details", {}).get("name"))


def _unknown_field(message: str) -> str | None:
    """The field that strict validation does not know, from the message of server-side apply or of the decoder."""
    found = re.search(r"(\S+): field not declared in schema|unknown field \"([^\"]+)\"", message)
    return (found[1] or found[2]).lstrip(".") if found else None


def is_failed_test(body: bytes) -> bool:
    """Whether a 422 means that a test of the JSON patch failed; otherwise the result would be invalid."""
    causes = _status(body).get("details", {}).get("causes", [])
    return not any(each.get("field") for each in causes)


def _message(body: bytes) -> str:
    return str(_status(body).get("message", ""))


def _status(body: bytes) -> dict[str, Any]:
    try:
        status = json.loads(body)
    except ValueError:
        return {}
    return status if isinstance(status, dict) else {}


def _seconds(retry_after: str | None) -> float | None:
    """The pause of a Retry-After header, a number or a time; five minutes at most; None if it has none."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):  # neither a number nor a time, or a time without a zone
            return None
    # A past time is ignored and a far one is cut, so that the back-off of the service stays in effect.
    return min(seconds, _LONGEST_PAUSE) if seconds > 0 else None
