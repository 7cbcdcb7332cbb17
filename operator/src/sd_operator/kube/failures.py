# SPDX-License-Identifier: Apache-2.0
"""What an answer of the API server means for us: come again, ask a person, or KubeRay is not there."""

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
_TOO_LARGE = "make the spec shorter, "
_NEEDS_A_PERSON = {
    "request is too large": _TOO_LARGE,  # etcd's words, from 1.5 MiB on
    "larger than max": _TOO_LARGE,  # those of gRPC, from 2 MiB on
    "failed calling webhook": "a webhook is away, ",
}
"""What HTTP 500 says where trying again soon is of no use, and what to do about it."""


def failure(kind: Kind, status: int, body: bytes, retry_after: str | None) -> SdServiceError:
    """The error for an answer that is none of 2xx."""
    message = _message(body) or f"HTTP {status}"
    if status == _GONE and kind.name in {"RayService", "RayCluster"} and not names_an_object(body):
        return KubeRayMissing(
            "the cluster has no kind RayService (ray.io/v1): install KubeRay 1.7 or newer, then this goes on by itself"
        )
    if kind.name in {"RayService", "RayCluster"} and _GOING in message:
        return KubeRayMissing(
            "the kind RayService (ray.io/v1) is being deleted: install KubeRay 1.7 or newer, then this goes on by itself"
        )
    field = _unknown_field(message)
    if kind.name == "RayService" and field:
        return KubeRayTooOld(
            f"KubeRay's RayService has no field {field}: install KubeRay 1.7 or newer with its CustomResourceDefinitions"
            " (Helm does not upgrade those), then this goes on by itself"
        )
    hint = next((hint for words, hint in _NEEDS_A_PERSON.items() if words in message), "")
    is_passing = status in {_UNAUTHORIZED, _CONFLICT, _EXPIRED, _TOO_MANY} or status >= _SERVER_ERROR
    if is_passing and not hint:
        return ClusterUnavailable(f"{kind.name}: {message}", _seconds(retry_after))
    return Refused(f"{hint}the API server refuses the {kind.name}: {message}")


def names_an_object(body: bytes) -> bool:
    """Tell "this object is not there" from "this kind is not there"; both are 404."""
    return bool(_status(body).get("details", {}).get("name"))


def _unknown_field(message: str) -> str | None:
    """The field that strict validation does not know, in the words of server-side apply or of the decoder."""
    found = re.search(r"(\S+): field not declared in schema|unknown field \"([^\"]+)\"", message)
    return (found[1] or found[2]).lstrip(".") if found else None


def is_failed_test(body: bytes) -> bool:
    """Tell "a test of this JSON patch failed" from "the result would be invalid"; both are 422."""
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
    """The pause that a Retry-After asks for, as a number or as a time; none longer than five minutes."""
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        except (TypeError, ValueError):  # neither; or a time without its zone
            return None
    # Neither a time that is over nor one far away keeps a service from its own back-off.
    return min(seconds, _LONGEST_PAUSE) if seconds > 0 else None
