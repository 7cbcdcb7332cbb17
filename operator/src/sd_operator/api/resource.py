# SPDX-License-Identifier: Apache-2.0
"""The StableDiffusionService as a whole. `parse` is the only place that turns untyped input into a typed Spec."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from sd_operator.api.spec import Spec
from sd_operator.errors import InvalidResource, Problem

GROUP = "sdservice.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "StableDiffusionService"
PLURAL = "stablediffusionservices"

NAME_PATTERN = "^[a-z]([-a-z0-9]*[a-z0-9])?$"
NAME_LIMIT = 47
NAME_RULES = {
    f"size(self.metadata.name) <= {NAME_LIMIT}": (
        f"metadata.name must be at most {NAME_LIMIT} characters, because KubeRay appends suffixes: shorten the name"
    ),
    f"self.metadata.name.matches('{NAME_PATTERN}')": (
        "metadata.name must start with a lower-case letter, contain only lower-case letters, digits and '-', and not end"
        " with '-', because it becomes the name of a Service"
    ),
}
"""Rules for the name, from CEL to message. They are at the root, where CEL can read metadata.name."""


@dataclass(frozen=True)
class Resource:
    """A StableDiffusionService: identity and spec."""

    name: str
    namespace: str
    uid: str
    generation: int
    spec: Spec


def parse_live(body: Mapping[str, Any]) -> Resource:
    """`parse` for an object from the API server: ignores fields of a newer CRD.

    The API server has already validated the object. The CRD is upgraded before the operator, and then every resource
    has the defaults of new fields at once.
    """
    return parse(body, extra="ignore")


def parse(body: Mapping[str, Any], *, extra: Literal["forbid", "ignore"] = "forbid") -> Resource:
    """Turn a StableDiffusionService from YAML or from the API server into a typed Resource.

    Args:
        body: the whole object.
        extra: whether unknown fields of the spec are errors (`forbid`) or are ignored.

    Raises:
        InvalidResource: the resource breaks rules. The error has the field, the value and the rule of each.
    """
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name = str(metadata.get("name", ""))
    problems = [*_identity_problems(body, name)]
    spec = None
    try:
        # Through JSON, so that numbers and booleans are strict, as in the API server, and lists become tuples.
        spec = Spec.model_validate_json(json.dumps(body.get("spec", {}), default=str), extra=extra)
    except ValidationError as error:
        problems += [problem for details in error.errors(include_url=False) for problem in _problems(details)]
    if spec is None or problems:
        raise InvalidResource(name or "<unnamed>", tuple(problems))
    return Resource(
        name=name,
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 1),
        spec=spec,
    )


def _identity_problems(body: Mapping[str, Any], name: str) -> Iterator[Problem]:
    for field, wanted in (("apiVersion", API_VERSION), ("kind", KIND)):
        if body.get(field) != wanted:
            yield Problem(field, repr(body.get(field)), f"must be {wanted}")
    too_long, malformed = NAME_RULES.values()
    if len(name) > NAME_LIMIT:
        yield Problem("metadata.name", repr(name), too_long)
    if re.search(NAME_PATTERN, name) is None:
        yield Problem("metadata.name", repr(name), malformed)
    yield from _unknown(body, {"apiVersion", "kind", "metadata", "spec", "status"})


def _unknown(body: Mapping[str, Any], known: set[str]) -> Iterator[Problem]:
    for field in body:
        if field not in known:
            yield Problem(str(field), None, "unknown field; check its spelling")


def _problems(details: ErrorDetails) -> Iterator[Problem]:
    path = "spec" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in details["loc"])
    if details["type"] == "broken_rules":
        for field, message in details["ctx"]["broken"]:
            yield Problem(path + field, _shown(details["input"], field) if field else None, message)
    elif details["type"] == "extra_forbidden":
        yield Problem(path, None, "unknown field; check its spelling")
    elif details["type"] == "missing":
        yield Problem(path, None, "required field is missing")
    else:
        yield Problem(path, _shown(details["input"]), details["msg"])


def _shown(value: object, field: str = "") -> str | None:
    for part in filter(None, field.split(".")):
        value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        return None
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - one line in a terminal
