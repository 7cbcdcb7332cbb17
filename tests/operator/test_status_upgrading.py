# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from sd_operator.intent import of_spec
from sd_operator.observed import Application, Observed, RayServiceView
from sd_operator.status.conditions import accepted
from sd_operator.status.upgrading import upgrading
from sd_operator.upgrade_state import UpgradeState, upgrade_state

SERVING = RayServiceView(
    up_to_date=True,
    since="2026-01-01T00:00:00Z",
    active="imagine-old",
    active_application=Application("RUNNING"),
    endpoints=1,
)
BOTH = replace(SERVING, pending="imagine-new", upgrading=True)


@pytest.fixture
def told(resource):
    def tell(view, state=None, **spec):
        verdict = upgrading(
            of_spec(resource(**spec).spec, "image:1"), Observed(view, upgrade=state or UpgradeState())
        )
        return verdict.status, verdict.reason, verdict.message

    return tell


def test_one_cluster_that_is_as_wanted_is_up_to_date(told):
    assert told(SERVING)[:2] == ("False", "UpToDate")
    assert told(None)[:2] == ("False", "UpToDate")


def test_a_second_cluster_is_named(told):
    state, reason, message = told(BOTH)
    assert (state, reason) == ("True", "NewClusterStarting")
    assert "imagine-new" in message
    assert "imagine-old serves until it is ready" in message


def test_a_second_cluster_that_fails_says_so_and_who_serves(told):
    view = replace(BOTH, pending_application=Application("DEPLOY_FAILED", "out of memory"))
    state, reason, message = told(view)
    assert (state, reason) == ("True", "UpgradeFailed")
    assert "out of memory" in message
    assert "imagine-old serves on as before; mend the spec, or take the change back" in message


def test_a_shortage_is_told(told):
    state, reason, message = told(BOTH, UpgradeState(shortage="1 of the 1 workers find no room"))
    assert (state, reason) == ("True", "ShortOfGpus")
    assert "1 of the 1 workers find no room" in message


def test_traffic_that_moves_in_steps_is_counted(told):
    assert "imagine-new takes 25 % of the requests" in told(BOTH, UpgradeState(traffic_percent=25))[2]


def test_what_in_place_only_leaves_out_is_named(told):
    behind = UpgradeState(behind="headGroupSpec.template.spec.containers[ray-head].image")
    state, reason, message = told(SERVING, behind, upgrade={"strategy": "InPlaceOnly"})
    assert (state, reason) == ("False", "ChangesIgnored")
    assert "containers[ray-head].image" in message
    assert "serving configuration of the spec reaches them" in message


def test_a_change_that_kuberay_has_not_seen_yet_is_on_its_way(told):
    behind = UpgradeState(behind="rayVersion")
    assert told(SERVING, behind)[:2] == ("True", "NewClusterStarting")
    steps = {"strategy": "Incremental", "incremental": {"gatewayClassName": "istio"}}
    assert "RayServiceIncrementalUpgrade" in told(SERVING, behind, upgrade=steps)[2]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("v1.7.0", "Accepted"),
        ("v1.10.2", "Accepted"),
        ("nightly", "Accepted"),
        ("", "Accepted"),
        ("v1.6.2", "KubeRayTooOld"),
    ],
)
def test_an_old_kuberay_is_not_accepted(resource, version, reason):
    observed = Observed(SERVING, upgrade=UpgradeState(kuberay=version))
    assert accepted(of_spec(resource().spec, "image:1"), observed).reason == reason


def test_state_is_read_from_the_cluster_that_serves():
    status = {
        "activeServiceStatus": {"rayClusterName": "old"},
        "pendingServiceStatus": {"rayClusterName": "new", "trafficRoutedPercent": 30},
    }
    wanted = {"headGroupSpec": {"template": {"spec": {}}}, "workerGroupSpecs": [], "rayVersion": "2"}
    annotations = {"ray.io/kuberay-version": "v1.7.0", "sdservice.dev/cluster-config": "other"}
    active = {"metadata": {"annotations": annotations}, "spec": {**wanted, "rayVersion": "1"}}
    made_of = {"sdservice.dev/cluster-config": "this"}
    service = {"metadata": {"annotations": made_of}, "spec": {"rayClusterConfig": wanted}, "status": status}
    assert upgrade_state(service, active) == UpgradeState("rayVersion", 30, "", "v1.7.0")
    assert upgrade_state(None, active) == UpgradeState()
