# SPDX-License-Identifier: Apache-2.0
"""A running cluster keeps its image. The decision depends on the existing RayService and RayClusters."""

import pytest

from sd_operator.builders.preload import preload_daemon_sets
from sd_operator.builders.ray_service import ray_service
from sd_operator.reconcile.image_pins import is_needed, pins
from sd_operator.settings import Settings

SETTINGS = Settings()
ONE, TWO = ({"repository": "r/i", "tag": tag} for tag in "12")
POOL = [{"name": "gpu", "nodeSelector": {"pool": "l4"}}]


@pytest.fixture
def daemon_set(resource):
    def build(**spec):
        (built,) = preload_daemon_sets(resource(**spec), SETTINGS)
        return built

    return build


@pytest.fixture
def running(resource):
    """Pins of what is wanted, of the live RayService and of RayClusters, each by its spec."""

    def build(wanted, live=None, clusters=()):
        bodies = [ray_service(resource(**each), SETTINGS) for each in (wanted, live) if each is not None]
        cluster_bodies = [
            {"spec": ray_service(resource(**each), SETTINGS)["spec"]["rayClusterConfig"]} for each in clusters
        ]
        return pins(resource(**wanted).spec, SETTINGS, bodies, cluster_bodies)

    return build


def test_the_former_image_is_needed_while_the_ray_service_has_it(daemon_set, running):
    found = running({"image": TWO}, live={"image": ONE})
    assert is_needed(daemon_set(image=ONE), found, [daemon_set(image=TWO)])


def test_and_while_a_cluster_has_it(daemon_set, running):
    found = running({"image": TWO}, live={"image": TWO}, clusters=[{"image": ONE}, {"image": TWO}])
    assert is_needed(daemon_set(image=ONE), found, [daemon_set(image=TWO)])


def test_not_any_more_once_nothing_runs_it(daemon_set, running):
    found = running({"image": TWO}, live={"image": TWO}, clusters=[{"image": TWO}])
    assert not is_needed(daemon_set(image=ONE), found, [daemon_set(image=TWO)])


def test_an_edit_that_was_taken_back_leaves_nothing(daemon_set, running):
    found = running({"image": ONE}, live={"image": ONE}, clusters=[{"image": ONE}])
    assert not is_needed(daemon_set(image=TWO), found, [daemon_set(image=ONE)])


def test_on_other_nodes_it_is_needed_for_as_long_as_workers_are_there(daemon_set, running):
    wanted, before = {"image": ONE, "workerGroups": POOL}, {"image": ONE}
    moving = running(wanted, live=wanted, clusters=[before, wanted])
    assert is_needed(daemon_set(**before), moving, [daemon_set(**wanted)])
    moved = running(wanted, live=wanted, clusters=[wanted])
    assert not is_needed(daemon_set(**before), moved, [daemon_set(**wanted)])


def test_one_with_other_images_beside_is_needed_until_the_next_one_holds_the_image(daemon_set, running):
    found = running({"image": ONE}, live={"image": ONE}, clusters=[{"image": ONE}])
    more = daemon_set(image=ONE, imagePreload={"images": ["example.org/more:1"]})
    assert is_needed(more, found, [])
    assert not is_needed(more, found, [daemon_set(image=ONE)])


@pytest.mark.parametrize("spec", [{"suspend": True}, {"imagePreload": {"mode": "Disabled"}}])
def test_nothing_is_kept_for_one_that_wants_no_preload(daemon_set, running, spec):
    found = running({"image": TWO, **spec}, live={"image": ONE}, clusters=[{"image": ONE}])
    assert not is_needed(daemon_set(image=ONE), found, [])


def of_former_release(body):
    """One per service and group, on every node that the group tolerates."""
    pod = {key: value for key, value in body["spec"]["template"]["spec"].items() if key != "affinity"}
    labels = {"sdservice.dev/name": "imagine"}
    template = {**body["spec"]["template"], "spec": pod}
    return {
        **body,
        "metadata": {"name": "imagine-preload-gpu", "labels": labels},
        "spec": {"template": template},
    }


def test_that_of_a_former_release_stays_until_the_shared_one_holds_the_image(daemon_set, running):
    found = running({"image": ONE}, live={"image": ONE}, clusters=[{"image": ONE}])
    former = of_former_release(daemon_set(image=ONE))
    assert is_needed(former, found, [])
    assert not is_needed(former, found, [daemon_set(image=ONE)])


def test_other_labels_of_gpu_nodes_leave_no_moment_without(resource, daemon_set, running):
    found = running({"image": ONE}, live={"image": ONE}, clusters=[{"image": ONE}])
    (before,) = preload_daemon_sets(resource(image=ONE), Settings(gpu_node_labels="accelerator"))
    assert is_needed(before, found, [])
    assert is_needed(before, found, [daemon_set(image=TWO)])
    assert not is_needed(before, found, [daemon_set(image=ONE)])


def test_fields_that_kuberay_leaves_out_since_they_are_empty_change_nothing(daemon_set, resource):
    body = ray_service(resource(image=ONE), SETTINGS)
    (group,) = body["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    group["template"]["spec"] |= {"nodeSelector": {}, "affinity": {"nodeAffinity": None}}
    found = pins(resource(image=TWO).spec, SETTINGS, [body], [])
    assert is_needed(daemon_set(image=ONE), found, [])
