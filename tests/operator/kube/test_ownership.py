# SPDX-License-Identifier: Apache-2.0
"""The service to which an object belongs, and the result of a name that is taken."""

import pytest

from sd_operator.errors import NameConflict, WaitingForDeletion
from sd_operator.kube.ownership import belongs_to, conflict, owner

GONE = "2026-01-02T03:04:05Z"


def live(deleted=None, **changes):
    """An object of the former service `imagine`, or of another controller."""
    controller = {
        "apiVersion": "sdservice.dev/v1alpha1",
        "kind": "StableDiffusionService",
        "name": "imagine",
        "uid": "uid-0",
        "controller": True,
    }
    metadata = {"name": "imagine", "ownerReferences": [controller | changes]}
    return {"metadata": metadata | ({"deletionTimestamp": deleted} if deleted else {})}


def test_an_owner_is_the_one_that_controls():
    assert owner(live()) == "uid-0"
    assert owner(live(controller=False)) is None
    assert belongs_to(live(), "uid-0")
    assert not belongs_to(live(), "uid-1")


@pytest.mark.parametrize("kind", ["RayService", "DaemonSet", "Deployment", "NetworkPolicy", "Secret"])
def test_what_the_former_service_of_this_name_left_is_waited_for(kind):
    found = conflict(live(GONE), kind, "imagine")
    assert isinstance(found, WaitingForDeletion)
    assert f"{kind} imagine belongs to the former, deleted service of this name" in str(found)
    assert f"has been terminating since {GONE}" in str(found)
    assert ("check that KubeRay runs" in str(found)) == (kind == "RayService")


def test_the_garbage_collector_may_not_have_come_to_it_yet():
    found = conflict(live(), "Secret", "imagine")
    assert isinstance(found, WaitingForDeletion)
    assert "is not deleted yet" in str(found)


@pytest.mark.parametrize(
    "changes",
    [{"name": "other"}, {"kind": "Application"}, {"apiVersion": "example.org/v1"}],
    ids=["another service", "another kind", "another group"],
)
def test_what_is_not_ours_is_left_alone_and_waited_for_only_while_it_goes(changes):
    found = conflict(live(**changes), "Secret", "imagine")
    assert isinstance(found, NameConflict)
    assert "Delete or rename it" in str(found)
    going = conflict(live(GONE, **changes), "Secret", "imagine")
    assert isinstance(going, WaitingForDeletion)
    assert "is not part of this service" in str(going)
