# SPDX-License-Identifier: Apache-2.0
"""The parts of a recorded status that remain until Ray has answered, and the parts that do not."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sd_operator import status
from sd_operator.api import Status
from sd_operator.observe.snapshot import Application
from sd_operator.ray.serve_state import Reading, Silence

AWAITED = ""
REFUSED = "Ray answers 302"


@pytest.fixture
def after(scene, resource):
    """The status after a pass that knows nothing of Ray, on top of one on record."""

    def compute(before, failure=AWAITED, *, asked=None, later=1, from_start=True, **snapshot):
        silence = Silence(scene.now, failure, from_start=from_start)
        seen = replace(scene.snapshot(**snapshot), silent={scene.cluster: silence})
        now = scene.now + timedelta(seconds=later)
        return status.compute(asked or resource(), seen, "image:1", before, now)

    return compute


@pytest.fixture
def recorded(scene, resource):
    """The status that Ray's answer made, as it is on record."""

    def compute(serve=None, asked=None, **snapshot):
        seen = scene.snapshot(serve=serve or scene.serve(), **snapshot)
        return status.compute(asked or resource(), seen, "image:1", Status(), scene.now)

    return compute


def told(found, kind="Ready"):
    each = next(each for each in found.conditions if each.type == kind)
    return each.status, each.reason, each.message


SCENES = {
    "serving": {},
    "degraded": {"state": "DEPLOY_FAILED", "model": 3, "target": 4, "message": "ValueError: one is sick"},
    "no replica": {"model": 0, "target": 1},
    "no model": {"state": "DEPLOY_FAILED", "model": 0, "message": "sd_runtime.errors.ModelNotFound: no"},
}


@pytest.mark.parametrize("what", SCENES)
def test_a_first_pass_writes_nothing_while_the_first_answer_is_awaited(scene, recorded, after, what):
    more = dict(SCENES[what])
    before = recorded(scene.serve(more.pop("state", "RUNNING"), **more))
    assert after(before) == before


@pytest.mark.parametrize("word", ["RUNNING", "DEPLOYING", "DEPLOY_FAILED", ""])
def test_what_kuberay_says_meanwhile_flips_nothing(scene, recorded, after, word):
    before = recorded(scene.serve(model=2))
    view = scene.but(scene.view, active_application=Application(word, "ValueError: something"))
    assert after(before, view=view) == before
    found = after(before, REFUSED, view=view)
    assert told(found)[:2] == ("True", "Serving")
    assert found.replicas == before.replicas


def test_after_two_minutes_of_silence_kuberays_word_counts(scene, recorded, after):
    before = recorded(scene.serve(model=2))
    view = scene.but(scene.view, active_application=Application("DEPLOY_FAILED", "ValueError: something"))
    within = after(before, REFUSED, view=view, later=119)
    assert told(within)[:2] == ("True", "Serving")
    assert told(after(within, REFUSED, view=view, later=121))[:2] == ("False", "ApplicationFailed")


def test_silence_is_told_with_its_age_and_with_what_came(scene, recorded, after):
    found = after(recorded(), REFUSED)
    mark = "(On record when the operator started at 2026-01-02T03:04:05Z; Ray's dashboard has not answered since: Ray answers 302)"
    assert told(found) == ("True", "Serving", f"RayCluster imagine-abcde serves requests. {mark}")
    assert told(found, "ConfigApplied")[2].startswith("Ray runs the configuration of this spec. (On record ")
    assert told(found, "ModelAvailable")[2].startswith("A replica has loaded the model. (On record ")
    again = after(found, REFUSED)
    assert again == found, "and it is not told twice"
    assert told(after(found, "Ray answers 500"))[2].count("On record") == 1


def test_ray_s_first_answer_takes_the_mark_away(scene, recorded, after, resource):
    before = recorded()
    marked = after(before, REFUSED)
    seen = scene.snapshot(serve=scene.serve())
    assert status.compute(resource(), seen, "image:1", marked, scene.now) == before


def test_what_kuberay_reported_is_not_kept_as_if_ray_had(scene, after):
    """A dashboard that never answers: a restart of the operator writes nothing."""
    by_word = after(Status(), REFUSED, from_start=False)
    assert told(by_word)[2] == (
        "RayCluster imagine-abcde serves requests, as KubeRay reports;"
        " Ray's dashboard does not answer (Ray answers 302)."
    )
    for failure in (AWAITED, REFUSED):
        assert after(by_word, failure) == by_word
    assert told(after(by_word, "Ray answers 500"))[2].endswith("(Ray answers 500).")


@pytest.mark.parametrize("failure", [AWAITED, REFUSED])
def test_bad_news_that_is_known_waits_for_nobody(scene, recorded, after, failure):
    before = recorded()
    gone = after(before, failure, pods=(scene.worker,))
    assert told(gone)[:2] == ("False", "HeadNotReady")
    no_pod = after(before, failure, pods=(scene.head, scene.but(scene.worker, ready=False)))
    assert told(no_pod)[:2] == ("False", "NoEndpoints")
    no_endpoint = after(before, failure, view=scene.but(scene.view, endpoints=0))
    assert told(no_endpoint)[:2] == ("False", "NoEndpoints")


@pytest.mark.parametrize("failure", [AWAITED, REFUSED])
def test_suspended_is_suspended(scene, resource, recorded, after, failure):
    found = after(recorded(), failure, asked=resource(suspend=True))
    assert told(found)[:2] == ("False", "Suspended")
    assert told(found, "ConfigApplied")[:2] == ("False", "Suspended")
    assert (found.replicas.ready, found.replicas.desired) == (0, 0)


def test_an_edit_is_not_applied_because_the_one_before_it_was(scene, recorded, after, resource):
    edited = resource(limits={"maxSteps": 33})
    edited = replace(edited, generation=4)
    found = after(recorded(), asked=edited, view=scene.but(scene.view, up_to_date=False))
    assert told(found, "ConfigApplied")[:2] == ("False", "ConfigPending")
    assert told(found)[:2] == ("True", "Serving")


def test_a_new_head_is_not_trusted_by_kuberays_old_word(scene, recorded, after):
    """It is ready, KubeRay still shows the RUNNING of the former one, and Ray's answer is awaited."""
    before = recorded(pods=(scene.but(scene.head, ready=False, running=False), scene.worker))
    assert told(before)[:2] == ("False", "HeadNotReady")
    found = after(before, from_start=False)
    assert told(found) == told(before)


def test_what_a_pod_contradicts_by_now_is_not_kept_once_ray_is_silent(scene, recorded, after):
    before = recorded(pods=(scene.but(scene.head, ready=False, running=False), scene.worker))
    assert told(after(before, REFUSED))[:2] == ("True", "Serving")


def test_a_service_that_is_asked_itself_stays_ready_until_it_has_said_no(scene, resource, recorded):
    before = recorded()
    for answers, wanted in ((None, ("True", "Serving")), (False, ("False", "HeadNotReady"))):
        seen = scene.snapshot(pods=(scene.worker,), answers=answers)
        assert told(status.compute(resource(), seen, "image:1", before, scene.now))[:2] == wanted
    unready = status.compute(resource(), seen, "image:1", before, scene.now)
    seen = scene.snapshot(pods=(scene.worker,), answers=None)
    assert told(status.compute(resource(), seen, "image:1", unready, scene.now))[:2] == (
        "False",
        "HeadNotReady",
    )


def test_what_came_is_told_where_ray_has_not_answered_lately(scene):
    seen = scene.snapshot(serve=Reading(scene.serve(), scene.now, fresh=False, failure="Ray answers 302"))
    assert scene.conditions(seen)["Ready"].message == (
        "RayCluster imagine-abcde serves requests, as Ray reported at 2026-01-02T03:04:05Z;"
        " Ray has not answered since (Ray answers 302)."
    )


def test_a_head_that_is_not_ready_need_not_answer(scene, after):
    found = after(
        Status(), "no answer", from_start=False, pods=(scene.but(scene.head, ready=False), scene.worker)
    )
    assert "does not answer" not in told(found, "ConfigApplied")[2]


def test_a_condition_of_another_version_is_no_obstacle(scene, recorded, after):
    before = recorded()
    strange = before.conditions[0].model_copy(update={"reason": "FromTheFuture"})
    found = after(before.model_copy(update={"conditions": (strange, *before.conditions[1:])}))
    assert told(found)[:2] == ("True", "Serving")


def test_a_config_that_was_just_handed_over_does_not_differ_before_ray_was_asked(scene, resource, recorded):
    """The reading is from before the edit; it is no news that it differs."""
    before, edited = recorded(), replace(resource(limits={"maxSteps": 33}), generation=4)

    def computed(previous, *, up_to_date=True, due=False):
        reading = Reading(scene.serve(), scene.now, due=due)
        seen = scene.snapshot(serve=reading, view=scene.but(scene.view, up_to_date=up_to_date))
        return status.compute(edited, seen, "image:1", previous, scene.now)

    pending = computed(before, up_to_date=False)
    assert told(pending, "ConfigApplied")[1] == "ConfigPending"
    assert computed(pending, due=True) == pending
    assert status.requeue_seconds(pending) == 30
    assert told(computed(pending), "ConfigApplied")[1] == "ConfigDiffers"
    assert told(computed(before, due=True), "ConfigApplied")[1] == "ConfigDiffers"
