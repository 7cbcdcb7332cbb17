# SPDX-License-Identifier: Apache-2.0
"""The versions that replicas report: the version of Ray in the image, and the commit of the loaded model."""

from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.observe.effective_spec import of_spec
from sd_operator.observe.upgrade_progress import UpgradeState
from sd_operator.ray.replica_starts import StartReport
from sd_operator.ray.serve_state import Reading
from sd_operator.status.upgrading import waiting_for_others

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"
BRANCH = {"model": {"preset": None, "uri": "hf://a/b", "revision": "main", "allowMutableRevision": True}}


@pytest.fixture
def started(scene):
    """What is observed where replicas have reported these (version of Ray, commit), one after the other."""

    def build(*reports, cluster=scene.cluster, **more):
        found = {
            f"r{number}": StartReport(scene.now + timedelta(seconds=number), {}, "", scene.now, 1.0, *each)
            for number, each in enumerate(reports)
        }
        reading = Reading(scene.serve(), scene.now, starts=found)
        return scene.snapshot(serve=reading, cluster=cluster, **more)

    return build


@pytest.mark.parametrize("told", ["2.60.0", "2.60.0.post1", "", "nightly"])
def test_an_image_with_the_ray_it_is_said_to_have_is_accepted(scene, started, told):
    assert scene.told("Accepted", started((told, ""))) == ("True", "Accepted")


def test_an_image_with_another_ray_is_told_with_both_versions(scene, started, resource):
    found = scene.conditions(started(("2.58.0", "")), resource(image={"repository": "r/i", "tag": "1"}))[
        "Accepted"
    ]
    assert (found.status, found.reason) == ("False", "RayVersionDiffers")
    assert "contains Ray 2.58.0, but spec.image.rayVersion is 2.60.0" in found.message
    assert "Set spec.image.rayVersion: 2.58.0" in found.message
    assert scene.told("Ready", started(("2.58.0", ""))) == ("True", "Serving"), "it runs all the same"


def test_a_cluster_of_another_spec_says_nothing_about_this_one(scene, started):
    """While an upgrade goes on the first cluster has its own Ray; the second one's counts."""
    behind = started(("2.58.0", ""), upgrade=UpgradeState(behind="image"))
    assert scene.told("Accepted", behind) == ("True", "Accepted")
    view = scene.but(scene.view, pending="imagine-new", upgrading=True)
    assert scene.told("Accepted", started(("2.58.0", ""), view=view)) == ("True", "Accepted")
    new = started(("2.58.0", ""), view=view, cluster="imagine-new")
    assert scene.told("Accepted", new) == ("False", "RayVersionDiffers")


def test_what_waits_is_compared_with_nothing(scene, started, resource):
    """The running cluster is compared with the RayService that it has, not with the change that is held."""
    running = of_spec(resource(image={"rayVersion": "2.58.0"}).spec, "image:0")
    held = status.Held(waiting_for_others(1), running)
    computed = status.compute(resource(), started(("2.58.0", "")), "image:1", Status(), scene.now, held=held)
    assert {each.type: each.status for each in computed.conditions}["Accepted"] == "True"


@pytest.mark.parametrize(
    ("reports", "revision"),
    [((), "main"), ((("", ""),), "main"), ((("", COMMIT),), COMMIT), ((("", COMMIT), ("", OTHER)), OTHER)],
    ids=["nobody yet", "an older image", "one replica", "a branch that has moved: the last start"],
)
def test_the_revision_of_the_status_is_the_commit_that_runs(scene, started, resource, reports, revision):
    computed = status.compute(resource(**BRANCH), started(*reports), "image:1", Status(), scene.now)
    assert computed.model.revision == revision
    assert computed.model.uri == "hf://a/b"
