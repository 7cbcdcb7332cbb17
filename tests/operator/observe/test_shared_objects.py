# SPDX-License-Identifier: Apache-2.0
"""The services of an object that a watch or a LIST reports. A shared object belongs to several services."""

import pytest

from sd_operator.controller import resync
from sd_operator.kube import DAEMON_SET
from sd_operator.kube.watched_kinds import CHILDREN, keys
from sd_operator.naming import Key


def shared(*names, version="1", generation=1, counted="2026-01-02T03:00:00Z", **labels):
    references = [
        {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService", "name": each, "uid": each}
        for each in names
    ]
    status = {"manager": "kube-controller-manager", "subresource": "status", "time": counted}
    ours = {"manager": "sd-operator", "time": f"2026-01-02T04:00:0{version}Z"}
    return {
        "namespace": "team",
        "name": "sdservice-preload-0a",
        "uid": "uid-d",
        "resourceVersion": version,
        "generation": generation,
        "labels": {"sdservice.dev/preload": "0a", "app.kubernetes.io/managed-by": "sd-operator", **labels},
        "ownerReferences": references,
        "managedFields": [ours, status],
    }


@pytest.mark.parametrize(
    ("metadata", "whose"),
    [
        ({"namespace": "team", "labels": {"sdservice.dev/name": "a"}}, ["a"]),
        (shared("a", "b"), ["a", "b"]),
        (shared("a", "b", **{"sdservice.dev/name": "someone"}), ["a", "b"]),
        (shared(), []),
        ({"namespace": "team"}, []),
    ],
    ids=["one's own", "shared", "shared, with another's label", "of nobody", "without labels"],
)
def test_whose_it_is(metadata, whose):
    assert keys(metadata) == [Key("team", name) for name in whose]


def test_what_services_share_is_watched_too():
    (watched,) = (each for each in CHILDREN if each.kind == DAEMON_SET)
    assert watched.labels.items() <= shared("a")["labels"].items()


def version(metadata):
    return resync._fingerprint(DAEMON_SET, metadata)


def test_that_another_service_comes_to_share_it_concerns_none_of_the_others():
    before = version(shared("a"))
    assert version(shared("a", "b", version="2")) == before
    assert version(shared("a", version="2", generation=2)) != before
    assert version(shared("a", version="2", counted="2026-01-02T03:00:09Z")) != before
