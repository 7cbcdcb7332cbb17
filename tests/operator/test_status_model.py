# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator.observed import Application


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ModelNotFound", "ModelNotFound"),
        ("ModelForbidden", "ModelForbidden"),
        ("ModelUnavailable", "ModelUnavailable"),
        ("ConfigError", "ModelInvalid"),
    ],
)
def test_the_runtimes_own_error_is_the_reason(scene, error, reason):
    message = (
        f"A replica failed to start with exception. Error:\nsd_runtime.errors.{error}: model.uri: got 'x': no"
    )
    observed = scene.observed(serve=scene.serve("DEPLOYING", model=0, target=1, message=message))
    found = scene.conditions(observed)["ModelAvailable"]
    assert (found.status, found.reason, found.message) == ("False", reason, "model.uri: got 'x': no")


def test_kuberays_copy_of_the_message_tells_the_same(scene):
    words = "model: Error:\nsd_runtime.errors.ModelForbidden: model.uri: got 'x': gated"
    view = scene.but(scene.view, active_application=Application("DEPLOY_FAILED", words))
    assert scene.told("ModelAvailable", scene.observed(view)) == ("False", "ModelForbidden")


def test_a_running_replica_has_loaded_it(scene):
    assert scene.told("ModelAvailable", scene.observed(serve=scene.serve())) == ("True", "ModelLoaded")
    assert scene.told("ModelAvailable", scene.observed()) == ("True", "ModelLoaded")


def test_not_known_before_a_replica_tells(scene, resource):
    starting = scene.observed(serve=scene.serve("DEPLOYING", model=0, target=1))
    assert scene.told("ModelAvailable", starting) == ("Unknown", "ModelLoading")
    zero = resource(replicas={"min": 0, "max": 1})
    at_zero = scene.observed(serve=scene.serve(model=0, spec=zero))
    assert scene.told("ModelAvailable", at_zero, zero) == ("Unknown", "ModelNotLoaded")
    assert scene.told("ModelAvailable", scene.observed(), resource(suspend=True))[0] in {"True", "Unknown"}


def test_during_an_upgrade_the_model_of_the_new_cluster_counts(scene):
    upgrading = scene.but(scene.view, active_application=Application(), pending="imagine-new", upgrading=True)
    failed = scene.serve("DEPLOYING", model=0, message="sd_runtime.errors.ModelNotFound: no such")
    observed = scene.observed(upgrading, serve=failed, cluster="imagine-new")
    assert scene.told("ModelAvailable", observed) == ("False", "ModelNotFound")
    assert scene.told("Ready", observed) == ("True", "Serving")
