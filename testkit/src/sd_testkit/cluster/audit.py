# SPDX-License-Identifier: Apache-2.0
"""Read from the audit log what ServiceAccounts requested.

The log shows which rights are unused and which are missing.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_CREATED = 201


class Permission(NamedTuple):
    """A right as a Role states it. A subresource follows its resource after a slash."""

    group: str
    resource: str
    verb: str


class Asked(NamedTuple):
    """The requests of one user: those that were allowed, and those that were refused because a right is missing."""

    allowed: frozenset[Permission]
    refused: frozenset[Permission]


def audit_policy() -> dict[str, Any]:
    """Return an audit policy that logs only the requests of ServiceAccounts, without bodies.

    Kubernetes' own controllers are left out.
    """
    controllers, accounts = ["system:serviceaccounts:kube-system"], ["system:serviceaccounts"]
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "userGroups": controllers},
            {"level": "Metadata", "userGroups": accounts},
            {"level": "None"},
        ],
    }


def asked(log: Path, user: str) -> Asked:
    """Return what a user requested since the API server started.

    Args:
        log: the audit log, one event in JSON per line.
        user: the user name as the API server spells it.
    """
    allowed, refused = set[Permission](), set[Permission]()
    for event in _events(log):
        if event["user"]["username"] != user or "resource" not in event.get("objectRef", {}):
            continue
        decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
        (refused if decision == "forbid" else allowed).update(_permissions(event))
    return Asked(frozenset(allowed), frozenset(refused))


def granted(rules: list[dict[str, Any]]) -> frozenset[Permission]:
    """Return the rights that the rules of Roles grant."""
    return frozenset(
        Permission(group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    )


def _permissions(event: dict[str, Any]) -> Iterator[Permission]:
    about = event["objectRef"]
    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
    group = about.get("apiGroup", "")
    yield Permission(group, resource, event["verb"])
    # A server-side apply that creates an object needs both rights, and the log names the first one.
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == _CREATED:
        yield Permission(group, resource, "create")


def _events(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # The last line may be incomplete: the API server is still writing it.
