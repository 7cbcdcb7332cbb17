# SPDX-License-Identifier: Apache-2.0
import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.observe.snapshot import Application
from sd_operator.ray.replica_starts import StartReport
from sd_operator.ray.serve_state import Reading


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
    snapshot = scene.snapshot(serve=scene.serve("DEPLOYING", model=0, target=1, message=message))
    found = scene.conditions(snapshot)["ModelAvailable"]
    assert (found.status, found.reason, found.message) == ("False", reason, "model.uri: got 'x': no")


def test_kuberays_copy_of_the_message_tells_the_same(scene):
    words = "model: Error:\nsd_runtime.errors.ModelForbidden: model.uri: got 'x': gated"
    view = scene.but(scene.view, active_application=Application("DEPLOY_FAILED", words))
    assert scene.told("ModelAvailable", scene.snapshot(view)) == ("False", "ModelForbidden")


def test_a_running_replica_has_loaded_it(scene):
    assert scene.told("ModelAvailable", scene.snapshot(serve=scene.serve())) == ("True", "ModelLoaded")
    assert scene.told("ModelAvailable", scene.snapshot()) == ("True", "ModelLoaded")


def test_not_known_before_a_replica_tells(scene, resource):
    starting = scene.snapshot(serve=scene.serve("DEPLOYING", model=0, target=1))
    assert scene.told("ModelAvailable", starting) == ("Unknown", "ModelLoading")
    zero = resource(replicas={"min": 0, "max": 1})
    at_zero = scene.snapshot(serve=scene.serve(model=0, spec=zero))
    assert scene.told("ModelAvailable", at_zero, zero) == ("Unknown", "ModelNotLoaded")
    assert scene.told("ModelAvailable", scene.snapshot(), resource(suspend=True))[0] in {"True", "Unknown"}


def test_during_an_upgrade_the_model_of_the_new_cluster_counts(scene):
    upgrading = scene.but(scene.view, active_application=Application(), pending="imagine-new", upgrading=True)
    failed = scene.serve("DEPLOYING", model=0, message="sd_runtime.errors.ModelNotFound: no such")
    snapshot = scene.snapshot(upgrading, serve=failed, cluster="imagine-new")
    assert scene.told("ModelAvailable", snapshot) == ("False", "ModelNotFound")
    assert scene.told("Ready", snapshot) == ("True", "Serving")


@pytest.fixture
def loaded(scene):
    """What is observed where a replica has reported this of its model."""

    def build(**report):
        start = StartReport(scene.now, {}, "", scene.now, 1.0, **report)
        return scene.snapshot(serve=Reading(scene.serve(), scene.now, starts={"a": start}))

    return build


def test_a_lora_that_cannot_be_used_leaves_the_service_ready_and_is_named(scene, loaded):
    snapshot = loaded(refused_loras={"ink": "loras: ink: got 'x': no"}, batching="step")
    found = scene.conditions(snapshot)["ModelAvailable"]
    assert (found.status, found.reason) == ("True", "LoraRefused")
    assert (
        found.message
        == "A replica has loaded the model. The replica runs without the LoRA ink: loras: ink: got 'x': no"
    )
    assert scene.told("Ready", snapshot) == ("True", "Serving")


def test_several_of_them_are_counted(scene, loaded):
    snapshot = loaded(refused_loras={"ink": "no", "oil": "nor this"}, batching="step")
    assert "without 2 LoRAs (ink, oil): no" in scene.conditions(snapshot)["ModelAvailable"].message


def test_what_a_library_warned_of_is_told(scene, loaded):
    found = scene.conditions(loaded(warnings=("diffusers: a", "diffusers: b"), batching="step"))[
        "ModelAvailable"
    ]
    assert (found.status, found.reason) == ("True", "LoadedWithWarnings")
    assert found.message == "A replica has loaded the model. diffusers: a (1 more in the log of the replica)"


@pytest.mark.parametrize(("batching", "found"), [("step", "step"), ("none", "none"), ("", None)])
def test_the_status_says_how_images_are_batched(scene, loaded, resource, batching, found):
    computed = status.compute(resource(), loaded(batching=batching), "image:1", Status(), scene.now)
    assert computed.model.batching == found
