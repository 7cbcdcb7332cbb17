# SPDX-License-Identifier: Apache-2.0
"""Mode Required: a RayService waits for its image."""

from datetime import UTC, datetime, timedelta

import pytest

from sd_operator.api import Status
from sd_operator.api.status import ImageStatus, PreloadStatus
from sd_operator.builders.ray_service import ray_service
from sd_operator.observe.image_gate import Hold, asks_for_images, hold
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.settings import Settings

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SINCE = "2026-01-02T03:00:00Z"
A, AB = frozenset("a"), frozenset("ab")
RECORDED = Status(preload=PreloadStatus(waiting_since=SINCE, images=(ImageStatus(image="r/i:2"),)))
REQUIRED = {"mode": "Required", "timeoutSeconds": 600}


@pytest.fixture
def asks(resource):
    def judge(live, **spec):
        wanted = resource(**{"image": {"tag": "2"}, "imagePreload": REQUIRED} | spec)
        before = None if live is None else ray_service(resource(**live), Settings())
        return asks_for_images(wanted.spec, ray_service(wanted, Settings()), before)

    return judge


def test_an_image_that_the_live_one_does_not_have_is_waited_for(asks):
    assert asks({"image": {"tag": "1"}})
    assert asks(None)


def test_a_change_that_is_taken_back_waits_for_nothing(asks):
    assert not asks({"image": {"tag": "2"}})


def test_whatever_needs_no_other_image_goes_through(asks):
    assert not asks({"image": {"tag": "2"}}, replicas={"min": 2, "max": 3}, sharedMemory="4Gi")


@pytest.mark.parametrize("mode", ["Disabled", "Opportunistic", "External"])
def test_only_required_waits(asks, mode):
    assert not asks({"image": {"tag": "1"}}, imagePreload={"mode": mode})


def test_nothing_waits_while_suspended(asks):
    assert not asks({"image": {"tag": "1"}}, suspend=True)


def test_pods_that_never_change_wait_for_no_image(asks):
    in_place = {"strategy": "InPlaceOnly"}
    assert not asks({"image": {"tag": "1"}}, upgrade=in_place)
    assert asks(None, upgrade=in_place), "the first ones do start"


@pytest.fixture
def held(resource):
    def judge(now=NOW, settled=True, unmade=0, ready=A, matched=AB, before=RECORDED, image="r/i:2"):
        found = ImageState(image, frozenset(matched), frozenset(ready))
        state = PreloadState((found,), unmade, settled=settled)
        return hold(resource(imagePreload=REQUIRED).spec, state, before, now)

    return judge


def test_it_waits_until_every_matching_node_has_the_image(held):
    assert held() == Hold(SINCE, "2026-01-02T03:10:00Z", is_over=False, seconds=600)
    assert held(ready=AB) is None


def test_no_matching_node_holds_nothing_back(held):
    assert held(ready="", matched="") is None


@pytest.mark.parametrize("early", [{"settled": False}, {"unmade": 1}], ids=["not counted", "no pod yet"])
def test_it_waits_for_the_count(held, early):
    assert held(ready=AB, **early)


def test_at_the_deadline_it_is_held_on_and_goes_on_with_the_image(held):
    late = NOW + timedelta(hours=1)
    assert held(late) == Hold(SINCE, "2026-01-02T03:10:00Z", is_over=True, seconds=600)
    assert held(late, ready=AB) is None


def test_the_time_begins_with_the_wait_for_an_image_and_is_each_services_own(held):
    """Whatever becomes of the DaemonSet, which others share: the time stands in the service's own status."""
    assert held(before=Status()).since == "2026-01-02T03:04:05Z"
    assert held(image="r/i:3").since == "2026-01-02T03:04:05Z"
    assert held(NOW + timedelta(minutes=5)).since == SINCE
