# SPDX-License-Identifier: Apache-2.0
"""What ServiceAccounts asked the API server for, by its audit log: who is granted more, or lacks something, is told there."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_CREATED = 201


class Permission(NamedTuple):
    """A right as a Role states it; a subresource follows its resource after a slash."""

    group: str
    resource: str
    verb: str


class Asked(NamedTuple):
    """What a user asked for: what it was allowed, and what was refused for want of a right."""

    allowed: frozenset[Permission]
    refused: frozenset[Permission]


def audit_policy() -> dict[str, Any]:
    """Requests of ServiceAccounts, without their bodies; not those of Kubernetes' own controllers, and nothing else."""
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
    """What a user asked for since the API server started.

    Args:
        log: the audit log, an event in JSON per line.
        user: as the API server calls it.
    """
    allowed, refused = set[Permission](), set[Permission]()
    for event in _events(log):
        if event["user"]["username"] != user or "resource" not in event.get("objectRef", {}):
            continue
        decision = event.get("annotations", {}).get("authorization.k8s.io/decision")
        (refused if decision == "forbid" else allowed).update(_permissions(event))
    return Asked(frozenset(allowed), frozenset(refused))


def granted(rules: list[dict[str, Any]]) -> frozenset[Permission]:
    """The rights that rules of Roles grant."""
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
    # A server-side apply that creates is asked for both, and the log names the first.
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == _CREATED:
        yield Permission(group, resource, "create")


def _events(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # the last one is being written
