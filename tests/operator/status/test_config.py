# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.observe.snapshot import Application
from sd_operator.ray.serve_state import ServeState


@pytest.fixture
def applied(scene):
    return lambda *arguments, **more: scene.told("ConfigApplied", scene.snapshot(*arguments, **more))


@pytest.fixture
def upgrading(scene):
    return scene.but(scene.view, active_application=Application(), pending="imagine-new", upgrading=True)


def test_read_back_and_equal(scene, applied):
    assert applied(serve=scene.serve()) == ("True", "ApplicationRunning")
    assert applied(serve=scene.serve("UNHEALTHY", model=0, target=1)) == ("True", "ApplicationRunning")


def test_a_difference_names_the_key(scene, resource):
    """What runs is the config of the spec before an edit."""
    snapshot = scene.snapshot(serve=scene.serve())
    found = scene.conditions(snapshot, resource(limits={"maxSteps": 7}))["ConfigApplied"]
    assert (found.status, found.reason) == ("False", "ConfigDiffers")
    assert found.message == (
        "deployments.ingress.user_config.limits.max_steps: the spec has 7, Ray runs 100 (1 more differ)"
    )


def test_no_word_is_not_a_failure(scene, applied):
    silent = scene.but(scene.view, active_application=Application())
    assert applied(silent) == ("False", "ConfigPending")
    assert applied(serve=ServeState("NOT_STARTED")) == ("False", "ConfigPending")


def test_what_kuberay_has_not_seen_is_pending(scene, applied):
    assert applied(scene.but(scene.view, up_to_date=False), serve=scene.serve()) == ("False", "ConfigPending")


def test_an_application_that_cannot_run_it_has_not_applied_it(scene, applied):
    failed = scene.serve("DEPLOY_FAILED", model=0, target=1, message="ValueError: no")
    assert applied(serve=failed) == ("False", "ApplicationFailed")
    assert applied(serve=scene.serve("DEPLOYING")) == ("False", "ApplicationDeploying")


def test_a_new_cluster_is_the_one_that_gets_it(scene, resource, upgrading):
    """The active cluster keeps the former config; that is no difference."""
    spec = resource(limits={"maxSteps": 7})
    new = scene.serve(spec=spec)
    both = scene.snapshot(upgrading, serve=new, cluster="imagine-new")
    both.serve[scene.cluster] = scene.stale(scene.serve())
    found = scene.conditions(both, spec)["ConfigApplied"]
    assert (found.status, found.reason) == ("False", "NewClusterStarting")
    assert found.message == (
        "RayCluster imagine-new runs the configuration but does not serve yet."
        " RayCluster imagine-abcde still serves with the former configuration."
    )


def test_only_the_new_cluster_is_compared(scene, resource, upgrading):
    new = scene.snapshot(upgrading, serve=scene.serve(), cluster="imagine-new")
    assert scene.told("ConfigApplied", new, resource(limits={"maxSteps": 7})) == ("False", "ConfigDiffers")
    old = scene.snapshot(upgrading, serve=scene.serve())
    assert scene.told("ConfigApplied", old, resource(limits={"maxSteps": 7})) == ("False", "ConfigPending")


def test_without_rays_answer_kuberays_word_has_to_do_and_is_named(scene):
    found = scene.conditions(scene.snapshot())["ConfigApplied"]
    assert (found.status, found.reason) == ("True", "ApplicationRunning")
    assert found.message == (
        "KubeRay sent the configuration of this spec to Ray; the operator has not read it back."
    )


def test_suspended_runs_nothing(scene, resource):
    assert scene.told("ConfigApplied", scene.snapshot(), resource(suspend=True)) == ("False", "Suspended")
