# SPDX-License-Identifier: Apache-2.0
"""Conditions of one status never contradict each other: impossible pairs, over random snapshots.

docs/conditions.md lists the same rules for readers.
"""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from sd_operator import status
from sd_operator.api import Status, parse
from sd_operator.builders.serve_config import serve_config
from sd_operator.observe.effective_spec import of_spec
from sd_operator.observe.image_gate import Hold
from sd_operator.observe.pod_problems import PodProblem
from sd_operator.observe.preload_state import ImageState, PreloadState
from sd_operator.observe.snapshot import Application, PodView, RayServiceView, Snapshot
from sd_operator.observe.upgrade_progress import UpgradeState
from sd_operator.ray.serve_state import DeploymentState, Reading, ServeState
from sd_operator.status import Held
from sd_operator.status.preload import waiting_for_images
from sd_operator.status.upgrading import waiting_for_others

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACTIVE, PENDING = "imagine-a", "imagine-b"
PLACES = {"Unschedulable", "QuotaExceeded", "PodsRefused"}
APPLICATION = {"ApplicationFailed", "ApplicationUnhealthy", "ApplicationDeploying"}
MODEL = {"ModelNotFound", "ModelForbidden", "ModelUnavailable", "ModelInvalid"}


def one_cluster(snapshot):
    return not (snapshot.active and snapshot.pending)


RULES = {
    "a pod without a place is told by both": lambda found, _: (
        found["Ready"].reason not in PLACES
        or (found["Schedulable"].status, found["Schedulable"].reason) == ("False", found["Ready"].reason)
    ),
    "what is suspended does not serve": lambda found, _: (
        found["Suspended"].status != "True" or found["Ready"].status == "False"
    ),
    "Ready names a suspension that Suspended knows of": lambda found, _: (
        (found["Ready"].reason == "Suspended") == (found["Suspended"].reason in {"Suspended", "Suspending"})
        or found["Ready"].reason in {"Creating", "WaitingForImages", "WaitingForOthers"}
    ),
    "nothing is upgraded, applied or loaded while suspended": lambda found, _: (
        found["Suspended"].reason not in {"Suspended", "Suspending"}
        or (
            found["Upgrading"].status == "False"
            and found["ConfigApplied"].status == "False"
            and found["ModelAvailable"].status == "Unknown"
        )
    ),
    "an application that failed runs no config": lambda found, _: (
        found["Ready"].reason not in {"ApplicationFailed", "ApplicationDeploying"}
        or found["ConfigApplied"].status != "True"
    ),
    "a new cluster beside one that serves is told by both": lambda found, snapshot: (
        found["ConfigApplied"].reason != "NewClusterStarting"
        or not snapshot.active
        or found["Upgrading"].status == "True"
        or found["Upgrading"].reason.startswith("Waiting")
    ),
    "an upgrade leaves the first cluster in place": lambda found, _: (
        found["Upgrading"].status != "True" or found["Ready"].reason not in {"Starting", "Creating"}
    ),
    "a model that cannot be loaded is told by both": lambda found, snapshot: (
        found["Ready"].reason not in MODEL
        or not one_cluster(snapshot)
        or (found["ModelAvailable"].status, found["ModelAvailable"].reason)
        == ("False", found["Ready"].reason)
    ),
    "what KubeRay refuses is not accepted": lambda found, _: (
        found["Ready"].reason != "KubeRayRefused" or found["Accepted"].reason == "KubeRayRefused"
    ),
    "what waits for its images has them nowhere reported as complete": lambda found, _: (
        "WaitingForImages" not in {each.reason for each in found.values()}
        or found["ImagesPreloaded"].status != "True"
    ),
    "a service at zero is one that may be there": lambda found, snapshot: (
        found["Ready"].reason not in {"ScaledToZero", "Waking"} or snapshot.active != ""
    ),
}


def shortly_before(seconds):
    return (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


reasons = st.sampled_from(
    [
        status.Reason.UNSCHEDULABLE,
        status.Reason.QUOTA_EXCEEDED,
        status.Reason.PODS_REFUSED,
        status.Reason.IMAGE_PULL_FAILED,
        status.Reason.CRASH_LOOPING,
    ]
)
times = st.sampled_from(["", *map(shortly_before, (0, 5, 29, 31, 900))])
problems = st.builds(
    PodProblem, reasons, st.sampled_from(["worker pod w", "head pod h"]), st.just("words"), times
)
messages = st.sampled_from(
    ["", "boom", "sd_runtime.errors.ModelNotFound: no", "sd_runtime.errors.ConfigError: no"]
)
states = st.sampled_from(
    ["", "NOT_STARTED", "DEPLOYING", "DEPLOY_FAILED", "RUNNING", "UNHEALTHY", "DELETING"]
)
applications = st.builds(Application, states, messages)
views = st.builds(
    RayServiceView,
    up_to_date=st.booleans(),
    since=st.just(shortly_before(100)),
    refused=st.sampled_from(["", "", "no"]),
    active=st.sampled_from(["", ACTIVE]),
    pending=st.sampled_from(["", PENDING]),
    active_application=applications,
    pending_application=applications,
    endpoints=st.integers(0, 2),
    upgrading=st.booleans(),
    suspending=st.sampled_from([False, False, False, True]),
    suspended=st.sampled_from([False, False, False, True]),
)
pods = st.lists(
    st.builds(
        PodView,
        cluster=st.sampled_from([ACTIVE, PENDING, "imagine-gone"]),
        group=st.sampled_from(["headgroup", "gpu"]),
        is_head=st.booleans(),
        ready=st.booleans(),
        in_service=st.booleans(),
        running=st.booleans(),
        problem=st.none() | problems,
    ),
    max_size=5,
)


def deployed(message, target, running):
    return DeploymentState("HEALTHY", message, target, running)


deployments = st.fixed_dictionaries(
    {},
    optional={
        name: st.builds(deployed, messages, st.integers(0, 2), st.integers(0, 2))
        for name in ("ingress", "model")
    },
)
nodes = st.frozensets(st.sampled_from(["n1", "n2"]))
preloads = st.builds(
    PreloadState,
    images=st.lists(
        st.builds(
            ImageState, st.just("r/i:1"), nodes, nodes, problems=st.lists(problems, max_size=1).map(tuple)
        ),
        max_size=1,
    ).map(tuple),
    unmade=st.integers(0, 1),
    settled=st.booleans(),
    hidden=st.sampled_from(["", "", "forbidden"]),
    refused=st.none() | problems,
)
upgrades = st.builds(
    UpgradeState,
    behind=st.sampled_from(["", "image"]),
    traffic_percent=st.none() | st.integers(0, 100),
    kuberay=st.sampled_from(["", "v1.7.0", "v1.6.0"]),
    outdated=st.sampled_from(["", "1 of 2 pods, in image"]),
)
holds = st.builds(Hold, st.just(shortly_before(-60)), st.booleans(), st.just(60))


def resource_of(spec):
    metadata = {"name": "imagine", "namespace": "team", "uid": "uid-1", "generation": 3}
    kind = {"apiVersion": "sdservice.dev/v1alpha1", "kind": "StableDiffusionService"}
    return parse({**kind, "metadata": metadata, "spec": {"model": {"preset": "shapes"}, **spec}})


RESOURCES = [
    resource_of({"suspend": suspend, "replicas": {"min": low, "max": 2}, "upgrade": {"strategy": strategy}})
    for suspend in (False, True)
    for low in (0, 1)
    for strategy in ("NewCluster", "InPlaceOnly")
]


@st.composite
def snapshots(draw):
    """A resource, what is observed of it, and why its change waits, if it does."""
    resource = draw(st.sampled_from(RESOURCES))
    config = draw(st.sampled_from([None, serve_config(resource.spec)["applications"][0], {"name": "other"}]))
    readings = {
        cluster: Reading(
            ServeState(draw(states), draw(messages), draw(deployments), config), NOW, draw(st.booleans())
        )
        for cluster in (ACTIVE, PENDING)
        if draw(st.booleans())
    }
    cluster_troubles = {cluster: draw(problems) for cluster in (ACTIVE, PENDING) if draw(st.booleans())}
    view = draw(st.none() | views)
    snapshot = Snapshot(
        view,
        tuple(draw(pods)),
        draw(preloads),
        cluster_troubles=cluster_troubles,
        deaths=draw(st.none() | problems),
        serve=readings,
        answers=draw(st.booleans()),
        upgrade=draw(upgrades),
    )
    return resource, snapshot, draw(st.none() | waits(resource, view))


def waits(resource, view):
    running = of_spec(resource.spec, "image:0") if view else None
    for_others = st.just(Held(waiting_for_others(1), running))
    if resource.spec.suspend:
        return st.none()
    return for_others | holds.map(lambda hold: Held(waiting_for_images(hold), running, hold))


@settings(max_examples=500, deadline=None)
@given(scene=snapshots())
def test_conditions_do_not_contradict_each_other(scene):
    resource, snapshot, held = scene
    computed = status.compute(resource, snapshot, "image:1", Status(), NOW, held=held)
    found = {condition.type: condition for condition in computed.conditions}
    broken = [rule for rule, holds_for in RULES.items() if not holds_for(found, snapshot)]
    assert broken == [], {kind: (each.status, each.reason) for kind, each in found.items()}


def test_the_first_half_minute_of_a_pod_without_a_node_is_told_alike(scene):
    """Seen on a real cluster: Ready=False/Unschedulable beside Schedulable=True/Scheduled."""
    problem = PodProblem(
        status.Reason.UNSCHEDULABLE, "worker pod w", "0/3 nodes are available", shortly_before(5)
    )
    view = scene.but(scene.view, active="", pending=scene.cluster, active_application=Application())
    snapshot = scene.snapshot(view, pods=(scene.head, scene.but(scene.worker, ready=False, problem=problem)))
    assert scene.told("Ready", snapshot) == ("False", "Starting")
    assert scene.told("Schedulable", snapshot) == ("True", "Scheduled")
    later = scene.now + timedelta(seconds=30)
    assert scene.told("Ready", snapshot, now=later) == ("False", "Unschedulable")
    assert scene.told("Schedulable", snapshot, now=later) == ("False", "Unschedulable")
